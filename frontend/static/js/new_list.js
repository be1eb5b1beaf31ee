// Whoever types the title of a new list wants that one, not the list that is chosen beside it.
document.addEventListener("input", ({ target }) => {
  if (target.matches("[data-new-list]") && target.value.trim()) (target.form.elements.list ?? target.form.elements.name).value = "";
});

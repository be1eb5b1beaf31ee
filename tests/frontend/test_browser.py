"""What the modules add, in a real Chromium under the server's own policy."""

import re

from playwright.sync_api import Browser, BrowserContext, expect

from tests.helpers.synthetic import word_feature

RED = word_feature("red")
LIT = re.compile(r"\bspotlight\b")
PATHS = [
    "/",
    "/features",
    f"/features/{RED}",
    "/map",
    f"/map?q=red&feature={RED}",
    "/samples",
    "/samples/s00000?f=0,3",
    "/search?q=red",
    "/quality",
    "/sae",
    "/cooccurrence",
    "/steer",
    "/explain",
    "/try",
    "/lists",
    "/method",
    "/docs",
]


def test_no_page_overflows_or_breaks_the_policy(context: BrowserContext) -> None:
    page = context.new_page()
    for path in PATHS:
        page.goto(path)
        page.wait_for_load_state("networkidle")
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        for width in (320, 390, 768, 1440):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)


def test_patches_tokens_and_features_of_a_sample(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"/features/{RED}?modality=image")
    page.get_by_test_id("example").first.locator("a").click()
    expect(page).to_have_url(re.compile(rf"/samples/.+feature={RED}"))
    page.wait_for_load_state()
    heat = page.get_by_test_id("heat").locator("path")
    assert heat.count() > 0

    pad = page.get_by_test_id("patch-pad")
    pad.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#he-h")).to_have_text("Here: row 1, column 0")
    expect(page).to_have_url(re.compile("row=1&col=0"))
    box = page.get_by_test_id("patch-pad").bounding_box()
    assert box
    page.get_by_test_id("patch-pad").click(position={"x": box["width"] * 0.9, "y": box["height"] * 0.1})
    expect(page.locator("#he-h")).to_have_text("Here: row 0, column 3")
    expect(page.get_by_test_id("patch-pad")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#he-h")).to_have_text("Here: row 1, column 3")

    page.goto(re.sub(r"\?.*", "", page.url))
    assert page.get_by_test_id("heat").locator("path").count() == 0
    page.get_by_test_id("sample").locator(f'a.label[data-feature="{RED}"]').first.hover()
    expect(page.get_by_test_id("heat").locator("path")).not_to_have_count(0)
    page.mouse.move(2, 2)
    expect(page.get_by_test_id("heat").locator("path")).to_have_count(0)


def test_one_scale_or_one_for_each_side(context: BrowserContext) -> None:
    """The switch stands in the address, and the page of a sample draws what it says with and without the pointer."""
    page = context.new_page()
    page.goto(f"/features/{RED}")
    tabs = page.get_by_test_id("modality-image"), page.get_by_test_id("modality-text")
    detail = page.request.get(f"/api/v1/features/{RED}").json()
    stronger = tabs[0] if detail["max_image"] > detail["max_text"] else tabs[1]
    expect(stronger).to_have_attribute("aria-current", "true")
    scales = page.locator(".legend .scale").all_inner_texts()
    assert len({re.findall(r"[0-9.]+", one)[-1] for one in scales}) == 1  # both end at p99.9
    page.get_by_test_id("scale-switch").click()
    expect(page).to_have_url(re.compile("scale=side"))
    expect(page.locator(".legend")).to_contain_text("each side has its own scale")

    examples = page.request.get(f"/api/v1/features/{RED}/examples?modality=image&limit=1").json()["items"]
    sample = examples[0]["sample_id"]
    drawn = {}
    for scale in ("", "&scale=side"):
        page.goto(f"/samples/{sample}?feature={RED}{scale}")
        chosen = page.get_by_test_id("heat").first.inner_html()
        page.goto(f"/samples/{sample}?{scale}")
        page.locator(f'a.label[data-feature="{RED}"]').first.hover()
        expect(page.get_by_test_id("heat").locator("path")).not_to_have_count(0)
        drawn[scale] = [re.findall(r"h\d", one) for one in (chosen, page.get_by_test_id("heat").first.inner_html())]
        assert drawn[scale][0] == drawn[scale][1]
    assert page.get_by_test_id("group-both").get_by_test_id("sample-feature").count() > 0


def test_lists_filter_as_one_types(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/features")
    page.get_by_test_id("q").fill("red")
    expect(page).to_have_url(re.compile("q=red"))
    expect(page.get_by_test_id("feature-row").filter(has_text="red")).not_to_have_count(0)
    page.get_by_test_id("sort").select_option("id")
    expect(page).to_have_url(re.compile("sort=id"))


def test_keys_walk_features_and_panels_fill_the_window(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"/features/{RED}?modality=text")
    page.keyboard.press("j")
    expect(page).to_have_url(re.compile(rf"/features/{RED + 1}\?modality=text"))
    page.wait_for_load_state()
    page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile(rf"/features/{RED}\?"))
    page.wait_for_load_state()
    page.get_by_test_id("examples").locator("[data-max]").click()
    expect(page.locator(".panel.max")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".panel.max")).to_have_count(0)


def test_what_lies_behind_a_panel_that_fills_the_window_is_not_reached(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"/features/{RED}?modality=image")
    page.get_by_test_id("examples").locator("[data-max]").click()
    inside = "document.activeElement === document.body || Boolean(document.activeElement.closest('.panel.max'))"
    for _ in range(60):
        page.keyboard.press("Tab")
        assert page.evaluate(inside)
    page.get_by_test_id("band-0").click()  # the part is made anew, and goes on filling the window
    expect(page).to_have_url(re.compile("band=0"))
    expect(page.locator("#examples.max")).to_have_count(1)
    page.keyboard.press("?")
    expect(page.get_by_test_id("keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("keys")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator(".panel.max")).to_have_count(0)
    expect(page.locator("[inert]")).to_have_count(0)
    page.get_by_test_id("next-feature").focus()
    expect(page.get_by_test_id("next-feature")).to_be_focused()


def test_a_table_that_became_cards_has_no_focus_out_of_sight(context: BrowserContext) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto("/features")
    links = page.get_by_test_id("feature-table").locator("thead a")
    assert links.count() > 3
    assert not links.evaluate_all("all => all.some((one) => one.checkVisibility({ visibilityProperty: true }))")


def test_counter_examples_are_a_tab_in_the_address(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"/features/{RED}?modality=image")
    page.get_by_test_id("band-counter").click()
    expect(page).to_have_url(re.compile("band=counter"))
    expect(page.get_by_test_id("counter-kind")).to_have_count(2)
    page.get_by_test_id("modality-text").click()
    expect(page).to_have_url(re.compile("modality=text"))
    assert "band=counter" in page.url


def test_keys_walk_the_list_one_came_from(context: BrowserContext) -> None:
    """Also a folded one: the second feature of a name is left out."""
    page = context.new_page()
    page.goto("/features?sort=lift")
    rows = page.get_by_test_id("feature-row")
    ids = [rows.nth(i).get_attribute("data-feature") for i in range(4)]
    page.goto("/features?sort=lift&fold=none")
    assert ids != [rows.nth(i).get_attribute("data-feature") for i in range(4)]
    page.goto("/features?sort=lift")
    rows.first.locator("a.label").click()
    for at, id in enumerate(ids):
        expect(page).to_have_url(re.compile(rf"/features/{id}$"))
        page.wait_for_load_state()  # the address changes before the page's modules listen
        if at + 1 < len(ids):
            page.keyboard.press("j")


def test_a_list_goes_along_into_a_new_tab_and_ends_with_its_last_feature(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/features?sort=lift")
    rows = page.get_by_test_id("feature-row")
    ids = [rows.nth(i).get_attribute("data-feature") for i in range(rows.count())]
    with context.expect_event("request", lambda request: "/features/" in request.url) as opened:
        rows.nth(len(ids) - 2).locator("a.label").click(modifiers=["ControlOrMeta"])
    tab = context.new_page()  # Playwright may lose sight of a tab that a link opened, though the tab shows its page
    tab.goto(opened.value.url)
    expect(tab.get_by_test_id("in-list")).to_have_text(f"{len(ids) - 1} of {len(ids)} in the list")
    tab.get_by_test_id("modality-text").click()
    expect(tab).to_have_url(re.compile("modality=text"))
    tab.keyboard.press("j")  # what was chosen after the page was loaded goes along
    expect(tab).to_have_url(re.compile(rf"/features/{ids[-1]}\?.*modality=text"))
    expect(tab.locator("a[rel=next]")).to_have_count(0)


def test_bands_are_chosen_on_the_histogram_and_hidden_heat_stays_hidden(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"/features/{RED}?modality=text")
    page.get_by_test_id("strip-image-0").click()
    expect(page).to_have_url(re.compile("modality=image&band=0"))
    expect(page.get_by_test_id("band-0")).to_have_attribute("aria-current", "true")
    page.go_back()
    expect(page.get_by_test_id("concordance")).to_be_visible()
    page.keyboard.press("h")
    page.keyboard.press("j")
    expect(page).to_have_url(re.compile(rf"/features/{RED + 1}"))
    expect(page.locator("html")).to_have_class("js no-heat")


def test_the_spotlight_is_in_the_address(context: BrowserContext) -> None:
    """Back undoes it, other choices keep it, and so do the links to the next feature and to samples."""
    page = context.new_page()
    page.goto(f"/features/{RED}?modality=image")
    page.get_by_test_id("spotlight").click()
    expect(page).to_have_url(re.compile("heat=spotlight"))
    expect(page.locator("html")).to_have_class(LIT)
    expect(page.get_by_test_id("spotlight")).to_have_attribute("aria-current", "true")
    page.go_back()
    expect(page.locator("html")).not_to_have_class(LIT)
    expect(page.get_by_test_id("spotlight")).not_to_have_attribute("aria-current", "true")
    page.go_forward()
    expect(page.locator("html")).to_have_class(LIT)
    page.get_by_test_id("lens-raw").click()  # a part of the page that was made before
    expect(page).to_have_url(re.compile("modality=image&heat=spotlight&lens=raw"))
    page.get_by_test_id("band-0").click()
    expect(page).to_have_url(re.compile("heat=spotlight.*band=0"))
    page.keyboard.press("j")
    expect(page).to_have_url(re.compile(rf"/features/{RED + 1}\?.*heat=spotlight"))
    expect(page.locator("html")).to_have_class(LIT)
    page.goto(f"/features/{RED}?modality=image&heat=spotlight")
    page.get_by_test_id("example").first.locator("a").click()
    expect(page).to_have_url(re.compile(r"/samples/.*heat=spotlight"))
    page.get_by_test_id("spotlight").click()
    expect(page.locator("html")).not_to_have_class(LIT)


def test_the_theme_is_kept(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/")
    page.get_by_test_id("theme-toggle").click()
    chosen = page.evaluate("document.documentElement.dataset.theme")
    page.goto("/features")
    assert page.evaluate("document.documentElement.dataset.theme") == chosen


def test_steering_page_keeps_its_state_in_the_address(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/steer")
    page.get_by_test_id("steer-find").fill("red")
    page.get_by_test_id("steer-find-button").click()
    page.get_by_test_id("steer-found").first.click()
    expect(page).to_have_url(re.compile(r"feature=\d+%3Aadd%3A[\d.]+&"))
    page.reload()
    expect(page.get_by_test_id("steer-feature")).to_have_count(1)
    expect(page.get_by_test_id("steer-go")).to_be_disabled()  # the model is off


def test_a_wrong_feature_of_steering_stays_in_the_address_until_something_changes(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/steer?feature=99999:add:4&feature=3:add:2")
    expect(page.get_by_test_id("steer-fault")).to_contain_text("There is no feature 99999: ")
    expect(page.get_by_test_id("steer-feature")).to_have_count(1)
    assert page.url.endswith("/steer?feature=99999:add:4&feature=3:add:2")
    page.get_by_test_id("steer-prompt").fill("What?")
    expect(page).to_have_url(re.compile(r"prompt=What%3F&feature=3%3Aadd%3A2"))


def test_a_server_that_is_gone_is_told_in_the_same_words_everywhere(browser: Browser, base_url: str) -> None:
    offline = browser.new_context(base_url=base_url)  # its console may tell of failed requests
    page = offline.new_page()
    page.goto("/steer")
    page.route(re.compile(r"/search\?"), lambda route: route.abort())
    page.get_by_test_id("steer-find").fill("red")
    page.get_by_test_id("steer-find-button").click()
    expect(page.get_by_text("The server cannot be reached")).to_be_visible()

    page.unroute(re.compile(r"/search\?"))
    page.goto("/features")
    page.route(re.compile(r"/features\?"), lambda route: route.abort())
    for words in ("red", "blue"):
        with page.expect_request(re.compile(rf"/features\?.*q={words}")):
            page.get_by_test_id("q").fill(words)
        expect(page.get_by_text("The server cannot be reached")).to_have_count(1)

    page.goto("/samples/s00000")
    boxes = "all => all.map((one) => one.getBoundingClientRect()).map(({ x, width }) => ({ x, width }))"
    columns = page.locator("#sample > .stack").evaluate_all(boxes)
    page.route(re.compile("position="), lambda route: route.abort())
    page.get_by_test_id("token").first.click()
    note = page.get_by_text("The server cannot be reached").bounding_box()
    assert page.locator("#sample > .stack").evaluate_all(boxes) == columns
    assert note and note["width"] > columns[0]["width"] + columns[1]["width"]
    offline.close()

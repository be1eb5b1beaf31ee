"""Back and Forward in a real Chromium: what one chooses is an entry of the history, what one types is not."""

import re

from playwright.sync_api import BrowserContext, expect


def test_back_undoes_a_choice_and_forward_repeats_it(context: BrowserContext, sample_id: str) -> None:
    page = context.new_page()
    page.goto("/samples")
    page.goto(f"/samples/{sample_id}")
    token = page.get_by_test_id("token").first
    token.click()
    expect(page.get_by_test_id("features-here")).to_be_visible()
    page.get_by_test_id("sample").get_by_test_id("sample-feature").first.locator("[data-swap]").first.click()
    expect(page).to_have_url(re.compile("position=.*(f|feature)="))
    page.go_back()
    expect(page).not_to_have_url(re.compile("(f|feature)="))
    page.mouse.move(2, 2)  # away from the feature, whose activations show under the pointer
    expect(page.get_by_test_id("heat").locator("path")).to_have_count(0)
    expect(page.get_by_test_id("features-here")).to_be_visible()
    page.go_back()
    expect(page.get_by_test_id("features-here")).to_have_count(0)
    expect(page).to_have_url(re.compile(f"/samples/{sample_id}$"))
    page.go_forward()
    expect(page.get_by_test_id("features-here")).to_be_visible()
    page.go_back()
    expect(page.get_by_test_id("features-here")).to_have_count(0)
    page.go_back()
    expect(page).to_have_url(re.compile("/samples$"))


def test_typing_is_one_entry_and_a_choice_is_its_own(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/")
    page.goto("/features")
    everything = page.get_by_test_id("feature-row").count()
    for words in ("r", "red"):
        page.get_by_test_id("q").fill(words)
        expect(page).to_have_url(re.compile(rf"q={words}(&|$)"))
    page.get_by_test_id("sort").select_option("id")
    expect(page).to_have_url(re.compile("sort=id"))
    page.go_back()
    expect(page).to_have_url(re.compile(r"q=red(&|$)"))
    expect(page.get_by_test_id("sort")).not_to_have_value("id")
    expect(page.get_by_test_id("q")).to_have_value("red")
    page.go_back()  # what was typed took the place of the list's own entry
    expect(page).to_have_url(re.compile(r":\d+/$"))
    assert everything


def test_a_score_opens_its_own_panel(context: BrowserContext, sample_id: str) -> None:
    page = context.new_page()
    page.goto(f"/samples/{sample_id}")
    page.get_by_test_id("scores").get_by_role("link", name="cosine-mean", exact=True).click()
    expect(page).to_have_url(re.compile("by=cosine-mean#keep"))
    expect(page.get_by_test_id("keep-panel").get_by_role("heading").first).to_be_in_viewport()


def test_the_patches_show_the_keyboards_focus(context: BrowserContext, sample_id: str) -> None:
    page = context.new_page()
    page.goto(f"/samples/{sample_id}")
    pad = page.get_by_test_id("patch-pad")
    pad.focus()
    page.keyboard.press("ArrowRight")
    style = pad.evaluate("one => [getComputedStyle(one).outlineStyle, parseFloat(getComputedStyle(one).outlineOffset)]")
    assert style[0] == "solid" and style[1] < 0  # inside: the image's frame cuts off what is outside

"""The page in a real browser: no text of a record runs, it opens quickly, and its controls work."""

import shutil
import time

import pytest
from evaluation_report import write_judgments

from judgelm_jax.commands import evaluate
from judgelm_jax.commands.command_line import run

CHROMIUM = shutil.which("chromium")
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
)
LOOKS = [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report of 5,004 records, one of them with an answer of a megabyte."""
    folder = tmp_path_factory.mktemp("browser")
    sizes = iter([10**6 // 6])
    judgments, labels = write_judgments(folder, 834, lambda rng: "words " * next(sizes, rng.randint(20, 400)))
    arguments = [f"--labels={labels}", f"--predictions={judgments}", f"--report={folder / 'report'}"]
    assert run(evaluate.main, evaluate.FLAGS, "evaluate", arguments) == 0
    return folder / "report/index.html"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield browser
        browser.close()


def open_once(page, report):
    """Seconds until it is ready."""
    start = time.perf_counter()
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]")
    return time.perf_counter() - start


@pytest.mark.parametrize("look", LOOKS, ids=["light", "dark", "phone"])
def test_five_thousand_hostile_records_open_quickly_and_run_nothing(report, browser, look, capsys):
    expect = pytest.importorskip("playwright.sync_api").expect  # the policy also forbids what waits by evaluating a text
    page = browser.new_context(**look).new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    seconds = min(open_once(page, report) for _ in range(3))  # other tests run beside
    assert page.title().startswith("Judgments of")
    assert page.locator("#list li").count() == 100
    page.keyboard.press("j")
    assert "</script><script>document.title" in page.locator("#detail").inner_text()
    page.keyboard.press("Escape")
    page.locator("#search").fill("0/alph-delt")
    expect(page.locator("#count")).to_have_text("84 of 5,004 records")  # 0, 10, 20, ..., 830
    page.locator("#search").fill("")
    expect(page.locator("#count")).to_have_text("5,004 of 5,004 records")
    page.locator("#filters button", has_text="inconsistent").click()
    assert page.locator("#list li").first.locator(".mark", has_text="inconsistent").count() == 1
    assert page.locator("#detail").is_hidden()
    # Nothing is wider than the window but what scrolls by itself.
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.title().startswith("Judgments of")
    assert said == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    size = report.stat().st_size
    with capsys.disabled():
        print(f"\nreport of 5,004 records: {size / 2**20:.1f} MiB, ready after {seconds:.2f} s ({look})")
    assert size < 15 * 2**20
    assert seconds < 2

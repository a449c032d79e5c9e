// Uses a page as a reader would; see test_browser.py, which fills in the USE_ words.
const found = {errors: [], violations: []};
addEventListener("error", (e) => found.errors.push(String(e.message || e.target.src)), true);
addEventListener("securitypolicyviolation", (e) => found.violations.push(e.blockedURI));
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const column = (table, n) => [...table.tBodies[0].rows].filter((r) => !r.hidden)
  .map((r) => r.cells[n].textContent.trim());
async function probe() {
  for (const image of document.images) image.loading = "eager";
  document.querySelectorAll("details").forEach((d) => { d.open = true; });
  // Not decode(): the browser's clock runs ahead of it, but waits for what is loaded.
  for (const image of document.images) {
    for (let i = 0; i < 200 && !image.complete; i++) await wait(50);
  }
  found.images = [...document.images].map((i) => [i.getAttribute("src"), i.naturalWidth]);
  const table = document.querySelector(USE_TABLE);
  const header = table.tHead.rows[0].cells;
  const names = [...header].map((h) => h.textContent);
  found.sorted = {};
  for (const name of USE_COLUMNS) {
    const n = names.indexOf(name);
    const button = header[n].querySelector("button");
    button.focus();
    button.click();
    const up = [column(table, n), header[n].getAttribute("aria-sort")];
    button.click();
    found.sorted[name] = [...up, column(table, n), header[n].getAttribute("aria-sort")];
  }
  const field = document.querySelector(`input[data-filters="${table.id}"]`);
  if (field) {
    field.value = USE_WORDS;
    field.dispatchEvent(new Event("input"));
    found.filtered = column(table, 1);
    found.said = document.getElementById(table.id + "-said").textContent;
    field.value = "";
    field.dispatchEvent(new Event("input"));
    found.unfiltered = column(table, 1).length;
  }
  const picker = document.querySelector(".picker");
  if (picker) {
    picker.scrollIntoView();
    // Without a window nothing comes into view: the pointer does.
    picker.dispatchEvent(new PointerEvent("pointerenter"));
    for (let i = 0; i < 200 && picker.querySelector("select").disabled; i++) await wait(50);
    const read = () => [...picker.querySelectorAll("svg path")].map((p) => p.getAttribute("d"));
    const select = picker.querySelector("select");
    found.choices = [...select.options].map((o) => o.textContent);
    const first = read();
    picker.querySelectorAll("button")[1].click();
    found.chosen = select.selectedIndex;
    found.picker = [first, read(), picker.querySelector("svg").getAttribute("aria-label")];
  }
  const dots = document.querySelector("figure.dots:has(svg a)");
  if (dots) {
    const said = dots.querySelector("output");
    found.stops = dots.querySelectorAll('svg a[tabindex="0"]').length;
    const first = dots.querySelector('svg a[tabindex="0"]');
    found.led = first.getAttribute("href");
    first.focus();
    found.dots = [said.textContent];
    first.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
    found.dots.push(document.activeElement.textContent === said.textContent ? said.textContent : "");
  }
  found.frames = [...document.querySelectorAll(".scroll")].map((f) => [f.scrollWidth, f.clientWidth]);
  found.width = [document.documentElement.scrollWidth, innerWidth];
  found.resources = performance.getEntriesByType("resource").map((r) => r.name);
  const pre = document.createElement("pre");
  pre.id = "probe";
  pre.textContent = JSON.stringify(found);
  document.body.append(pre);
}
probe();

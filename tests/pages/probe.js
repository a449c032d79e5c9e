// Uses a page as a reader would; see test_browser.py, which fills in the USE_ words.
const found = {errors: [], violations: []};
addEventListener("error", (e) => found.errors.push(String(e.message || e.target.src)), true);
addEventListener("securitypolicyviolation", (e) => found.violations.push(e.blockedURI));
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const column = (table, n) => [...table.tBodies[0].rows].filter((r) => !r.hidden)
  .map((r) => r.cells[n].textContent.trim());
// What a checker of accessibility would say, and where.
function examine() {
  const faults = [];
  const say = (what, node) => faults.push(`${what}: ${node.outerHTML.slice(0, 120)}`);
  let last = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
    const level = Number(heading.tagName[1]);
    if (level > last + 1) say("heading leaves out a level", heading);
    last = level;
  }
  for (const node of document.querySelectorAll("input, select")) if (!node.labels.length) say("no label", node);
  for (const node of document.querySelectorAll("a, button, summary")) {
    if (!(node.getAttribute("aria-label") || node.textContent).trim()) say("no name", node);
  }
  for (const node of document.querySelectorAll("img:not([alt]), iframe:not([title]), nav:not([aria-label]), [role=img]:not([aria-label]):not(:has(title))")) say("no name", node);
  for (const node of document.querySelectorAll("[aria-labelledby]")) if (!document.getElementById(node.getAttribute("aria-labelledby"))) say("names nothing", node);
  for (const node of document.querySelectorAll("nav a")) if (!document.getElementById(node.hash.slice(1))) say("leads nowhere", node);
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  if (new Set(ids).size < ids.length) faults.push("ids are not unique");
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  for (const node of document.querySelectorAll("body *:not(svg *):not(script):not(noscript *):not(option)")) {
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!text || !node.getClientRects().length || node.matches(":disabled")) continue;
    let ground = node;
    while (ground && (numbers(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
    const [a, b] = [getComputedStyle(node).color, ground ? getComputedStyle(ground).backgroundColor : "rgb(255, 255, 255)"].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) say(`contrast ${ratio.toFixed(2)}`, node);
  }
  return [...new Set(faults)];
}
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
  found.faults = examine();
  found.live = [...document.querySelectorAll("figure[data-live]")].length;
  if (picker) {
    const field = picker.querySelector("input");
    field.value = "VISUAL lh";
    field.dispatchEvent(new Event("input"));
    found.searched = [picker.querySelector(".found").textContent, picker.querySelector(".facts-line").textContent];
    for (let i = 0; i < 300 && picker.closest(".atlas").querySelector("iframe:not(.ready)"); i++) await wait(50);
    found.ready = picker.closest(".atlas").querySelectorAll("iframe.ready").length;
    found.asked = picker.closest(".atlas").querySelectorAll("figure[data-live]").length;
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

"use strict";
(() => {
  const collator = new Intl.Collator("en", {numeric: true, sensitivity: "base"});

  // Tables: buttons in the header sort, a field above filters.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const up = header.getAttribute("aria-sort") !== "ascending";
        headers.forEach((other) => other.removeAttribute("aria-sort"));
        header.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => {
          const text = row.cells[column].textContent.trim();
          return {row, text, value: text === "" || text === "n/a" ? NaN : Number(text.replace(/[,%]/g, ""))};
        });
        const missing = (item) => item.text === "n/a" || item.text === "";
        const numeric = rows.every((item) => missing(item) || !Number.isNaN(item.value));
        rows.sort((a, b) => {
          if (missing(a) !== missing(b)) return missing(a) ? 1 : -1;
          const order = numeric ? a.value - b.value || 0 : collator.compare(a.text, b.text);
          return up ? order : -order;
        });
        body.append(...rows.map((item) => item.row));
      });
    });
  }
  for (const field of document.querySelectorAll("input[data-filters]")) {
    const table = document.getElementById(field.dataset.filters);
    const said = document.getElementById(field.dataset.filters + "-said");
    const rows = [...table.tBodies[0].rows];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      said.textContent = `${shown} of ${rows.length} rows`;
    });
  }

  // Series of a region: the data come as a script of their own when they are needed.
  const waiting = new Map();
  window.bidsRoiSignals = (key, data) => {
    const picker = waiting.get(key);
    if (picker) start(picker, data);
  };
  const load = (picker) => {
    if (waiting.has(picker.dataset.key)) return;
    waiting.set(picker.dataset.key, picker);
    const script = document.createElement("script");
    script.src = picker.dataset.source;
    script.onerror = () => {
      picker.querySelector("output").textContent = "The file with the series is not here: " + picker.dataset.source;
    };
    document.head.append(script);
  };
  const decode = (series) => {
    const bytes = Uint8Array.from(atob(series.codes), (c) => c.charCodeAt(0));
    return (region) => {
      const low = series.low[region];
      const span = series.high[region] - low;
      const codes = bytes.subarray(region * series.points, (region + 1) * series.points);
      return Array.from(codes, (code) => (code === 255 ? NaN : low + (span * code) / 254));
    };
  };
  const NS = "http://www.w3.org/2000/svg";
  const make = (name, attributes, text) => {
    const node = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const short = (value) => Number(value.toPrecision(4)).toLocaleString("en", {maximumSignificantDigits: 4, useGrouping: false});

  function start(picker, data) {
    picker.classList.add("ready");
    const [choice, said, chart] = ["select", "output", "svg"].map((name) => picker.querySelector(name));
    const [back, next] = picker.querySelectorAll("button");
    choice.replaceChildren(...data.names.map((name, i) => new Option(name, i)));
    const decoded = data.series.map(decode);
    const empty = (i) => decoded.every((values) => values(i).every(Number.isNaN));
    data.names.forEach((name, i) => {
      if (empty(i)) choice.options[i].textContent = name + " (n/a)";
    });
    const draw = () => draw_region(chart, said, data, decoded, choice.selectedIndex);
    const move = (by) => {
      const n = data.names.length;
      choice.selectedIndex = (choice.selectedIndex + by + n) % n;
      draw();
    };
    for (const control of [choice, back, next]) control.disabled = false;
    back.addEventListener("click", () => move(-1));
    next.addEventListener("click", () => move(1));
    choice.addEventListener("change", draw);
    draw();
  }

  function draw_region(chart, said, data, decoded, region) {
    const [width, height, left, gap] = [900, 130, 70, 34];
    chart.setAttribute("viewBox", `0 0 ${width} ${decoded.length * (height + gap) + 22}`);
    chart.replaceChildren();
    const words = [];
    decoded.forEach((get, number) => {
      const values = get(region);
      const series = data.series[number];
      const top = number * (height + gap) + gap - 8;
      chart.append(make("text", {x: left, y: top - 8}, series.title));
      chart.append(make("path", {class: "axis", d: `M${left},${top}V${top + height}H${width - 10}`}));
      const known = values.filter((value) => !Number.isNaN(value));
      if (!known.length) {
        chart.append(make("text", {x: width / 2, y: top + height / 2, "text-anchor": "middle"}, "n/a: the region could not be measured"));
        words.push(`${series.title}: n/a`);
        return;
      }
      const [low, high] = [series.low[region], series.high[region]];
      const x = (i) => left + ((width - 10 - left) * (i + 0.5)) / values.length;
      const y = (value) => top + height - 4 - ((height - 8) * (value - low)) / (high - low || 1);
      let path = "";
      values.forEach((value, i) => {
        if (Number.isNaN(value)) return;
        const begins = i === 0 || Number.isNaN(values[i - 1]);
        path += `${begins ? "M" : "L"}${x(i).toFixed(1)},${y(value).toFixed(1)}`;
        if (begins && (i + 1 === values.length || Number.isNaN(values[i + 1]))) path += "h0.6";
      });
      chart.append(make("path", {class: series.title === "cleaned" ? "after" : "before", d: path}));
      chart.append(make("text", {x: left - 6, y: top + 9, "text-anchor": "end"}, short(high)));
      chart.append(make("text", {x: left - 6, y: top + height, "text-anchor": "end"}, short(low)));
      words.push(`${series.title}: ${short(low)} to ${short(high)}`);
      if (number === decoded.length - 1) {
        const bottom = top + height + 15;
        chart.append(make("text", {x: left, y: bottom}, "0"));
        chart.append(make("text", {x: width - 10, y: bottom, "text-anchor": "end"}, `${short(data.step * values.length)} ${data.unit}`));
      }
    });
    chart.setAttribute("aria-label", `Series of ${data.names[region]}. ${words.join("; ")}.`);
    said.textContent = words.join("; ");
  }

  const pickers = document.querySelectorAll(".picker");
  pickers.forEach((picker) => picker.addEventListener("pointerenter", () => load(picker)));
  if ("IntersectionObserver" in window) {
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) {
          watcher.unobserve(entry.target);
          load(entry.target);
        }
      }
    }, {rootMargin: "400px"});
    pickers.forEach((picker) => watcher.observe(picker));
  } else {
    pickers.forEach(load);
  }

  // Dots of runs: a line says which one it is; one stop of the tab key, arrows from there.
  for (const figure of document.querySelectorAll("figure.dots")) {
    const said = figure.querySelector("output");
    const dots = [...figure.querySelectorAll("svg a")];
    for (const mark of figure.querySelectorAll("circle, svg a path")) {
      mark.addEventListener("pointerenter", () => { said.textContent = mark.textContent; });
    }
    dots.forEach((dot, i) => {
      dot.setAttribute("tabindex", i ? "-1" : "0");
      dot.addEventListener("focus", () => { said.textContent = dot.textContent; });
      dot.addEventListener("keydown", (event) => {
        const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
        if (!step) return;
        event.preventDefault();
        const next = dots[(i + step + dots.length) % dots.length];
        dot.setAttribute("tabindex", "-1");
        next.setAttribute("tabindex", "0");
        next.focus();
      });
    });
  }

  // On paper everything is open.
  const closed = [];
  window.addEventListener("beforeprint", () => {
    for (const image of document.querySelectorAll("img[loading]")) image.loading = "eager";
    for (const details of document.querySelectorAll("details:not([open]):not(.screen)")) {
      details.open = true;
      closed.push(details);
    }
  });
  window.addEventListener("afterprint", () => closed.splice(0).forEach((details) => { details.open = false; }));
})();

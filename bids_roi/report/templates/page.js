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

  const NS = "http://www.w3.org/2000/svg";
  const make = (name, attributes, text) => {
    const node = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const short = (value) => Number(value.toPrecision(4)).toLocaleString("en", {maximumSignificantDigits: 4, useGrouping: false}).replace("-", "\u2212");

  // Figures answer in frames above their pictures: a file from disk cannot be read by a
  // page, but a frame can be talked to. It has no rights, and shows once it is ready.
  const live = new Map();
  const marked = new WeakMap();
  const enliven = (figure) => {
    if (live.has(figure)) return;
    const image = figure.querySelector("img");
    const frame = document.createElement("iframe");
    live.set(figure, frame);
    frame.setAttribute("sandbox", "allow-scripts");
    frame.title = `${figure.dataset.live}, to be asked with the pointer or the arrow keys`;
    frame.src = image.getAttribute("src");
    figure.querySelector(".pair").append(frame);
  };
  const send = (frame, region) => {
    if (frame.classList.contains("ready") && region !== undefined) frame.contentWindow.postMessage({mark: region}, "*");
  };
  window.addEventListener("message", (event) => {
    for (const [figure, frame] of live) {
      if (frame.contentWindow !== event.source) continue;
      const atlas = figure.closest(".atlas");
      if (event.data.ready) {
        frame.classList.add("ready");
        send(frame, marked.get(atlas));
      }
      if (Number.isInteger(event.data.chosen)) {
        const picker = atlas.querySelector(".picker");
        if (picker) picker.dispatchEvent(new CustomEvent("choose", {detail: event.data.chosen}));
        else mark(atlas, event.data.chosen);
      }
    }
  });
  const mark = (atlas, region) => {
    marked.set(atlas, region);
    for (const figure of atlas.querySelectorAll("figure[data-live]")) {
      enliven(figure);
      send(live.get(figure), region);
    }
  };
  for (const figure of document.querySelectorAll("figure[data-live]")) {
    figure.addEventListener("pointerenter", () => enliven(figure));
  }

  // Series of a region: the data come as scripts of their own when they are needed.
  const waiting = new Map();
  window.bidsRoiSignals = (key, data) => waiting.get(key)?.(data);
  const load = async (picker) => {
    if (picker.dataset.asked) return;
    picker.dataset.asked = "yes";
    const about = JSON.parse(picker.querySelector("script").textContent);
    const found = await Promise.all(about.series.map((series) => new Promise((done) => {
      waiting.set(series.key, (data) => done({...series, data}));
      const script = document.createElement("script");
      script.src = series.source;
      script.onerror = () => {
        picker.querySelector(".said").textContent = "The file with the series is not here: " + series.source;
        done(null);
      };
      document.head.append(script);
    })));
    const traces = trace(found.filter(Boolean));
    if (traces.length) start(picker, traces, about.regions);
  };

  // What is drawn: each statistic as extracted, once, and as each strategy leaves it.
  const trace = (found) => {
    const traces = new Map();
    for (const {data, statistic, strategy} of found) {
      data.series.forEach((series, n) => {
        const key = `${n} ${statistic} ${n ? strategy : ""}`;
        const title = `${statistic ? statistic + ", " : ""}${n ? strategy : "as extracted"}`;
        // What is left out is a strategy's affair: bands lie behind what it made.
        if (!traces.has(key)) traces.set(key, {...data, out: n ? data.out : "", after: n > 0, title, series, get: decode(series)});
      });
    }
    return [...traces.values()];
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

  function start(picker, traces, facts) {
    picker.classList.add("ready");
    const {names} = traces[0];
    const [choice, find, chart, line, said, count] =
      ["select", "input", "svg", ".facts-line", ".said", ".found"].map((name) => picker.querySelector(name));
    const buttons = picker.querySelectorAll("button");
    const fact = (name, i) => facts[name]?.[i] ?? "n/a";
    const lost = names.map((_, i) => traces.every((one) => one.get(i).every(Number.isNaN)));
    const labels = names.map((name, i) => name + (lost[i] ? " (n/a)" : ""));
    const texts = labels.map((label, i) => `${label} ${fact("network", i)} ${fact("status", i)}`.toLowerCase());
    let region = 0;
    let shown = names.map((_, i) => i);
    const list = () => {
      choice.replaceChildren(...shown.map((i) => new Option(labels[i], i, i === region, i === region)));
      count.textContent = find.value ? `${shown.length} of ${names.length}` : `${names.length} regions`;
    };
    const tell = (i) => {
      const rounded = (name, digits) => (fact(name, i) === "n/a" ? "n/a" : Number(fact(name, i)).toFixed(digits).replace("-", "\u2212"));
      const words = [names[i]];
      if (facts.network) words.push(`network ${fact("network", i)}`);
      if (facts.x) words.push(`x ${rounded("x", 0)}, y ${rounded("y", 0)}, z ${rounded("z", 0)} mm`);
      words.push(`coverage ${rounded("coverage", 3)}`, `tSNR ${rounded("tsnr", 1)}`, `status: ${fact("status", i).replaceAll("_", " ")}`);
      return words.join(" \u00b7 ");
    };
    const choose = (next, {marks = true} = {}) => {
      region = next;
      if (!shown.includes(region)) {
        find.value = "";
        shown = names.map((_, i) => i);
      }
      list();
      line.textContent = tell(region);
      said.textContent = draw_region(chart, names[region], traces, region, fact("status", region).replaceAll("_", " "));
      if (marks) mark(picker.closest(".atlas"), region);
    };
    const move = (by) => choose(shown[(shown.indexOf(region) + by + shown.length) % shown.length]);
    for (const control of [choice, find, ...buttons]) control.disabled = false;
    buttons[0].addEventListener("click", () => move(-1));
    buttons[1].addEventListener("click", () => move(1));
    choice.addEventListener("change", () => choose(Number(choice.value)));
    find.addEventListener("input", () => {
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      const met = names.map((_, i) => i).filter((i) => words.every((word) => texts[i].includes(word)));
      if (!met.length) {
        count.textContent = `0 of ${names.length}`;
        return;
      }
      shown = met;
      choose(met.includes(region) ? region : met[0]);
    });
    picker.addEventListener("choose", (event) => { if (event.detail < names.length) choose(event.detail); });
    chart.addEventListener("pointermove", (event) => {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
      const point = Math.floor((place.x - LEFT) / (RIGHT - LEFT) * traces[0].series.points);
      if (point >= 0 && point < traces[0].series.points) said.textContent = read(traces, region, point);
    });
    choose(marked.get(picker.closest(".atlas")) ?? 0, {marks: false});
  }

  const [WIDTH, LEFT, RIGHT, TALL, GAP] = [1100, 150, 1010, 110, 34];
  const unit = (series) => (series.unit === "arbitrary" ? "as in the image" : series.unit);
  // Time and values at one point of all traces.
  const read = (traces, region, point) => {
    const {volumes, count, step} = traces[0];
    const [first, last] = [point * volumes, Math.min(count, (point + 1) * volumes) - 1];
    const time = `${step ? `${+(first * step).toFixed(1)} s, ` : ""}volume ${first}${last > first ? ` to ${last}` : ""}`;
    return `${time}: ` + traces.map((one) => {
      const value = one.get(region)[point];
      const why = {1: "censored", 2: "not steady yet"}[one.out[point]] || "n/a";
      return `${one.title} ${Number.isNaN(value) ? why : short(value)}`;
    }).join("; ");
  };

  function draw_region(chart, name, traces, region, status) {
    chart.setAttribute("viewBox", `0 0 ${WIDTH} ${traces.length * (TALL + GAP) + 44}`);
    chart.replaceChildren();
    const words = [];
    traces.forEach(({series, title, get, out, after}, number) => {
      const values = get(region);
      const top = number * (TALL + GAP) + GAP - 8;
      const wide = (RIGHT - LEFT) / values.length;
      const x = (i) => LEFT + wide * (i + 0.5);
      for (const [code, kind] of [["1", "censored"], ["2", "early"]]) {
        let d = "";
        for (let i = 0; i < out.length; i++) if (out[i] === code) d += `M${(x(i) - wide / 2).toFixed(1)},${top}h${wide.toFixed(1)}v${TALL}h${(-wide).toFixed(1)}z`;
        if (d) chart.append(make("path", {class: `band ${kind}`, d}));
      }
      chart.append(make("text", {x: LEFT, y: top - 8, class: "title"}, title));
      chart.append(make("path", {class: "axis", d: `M${LEFT},${top}V${top + TALL}H${RIGHT}`}));
      const known = values.filter((value) => !Number.isNaN(value));
      if (!known.length) {
        chart.append(make("text", {x: (LEFT + RIGHT) / 2, y: top + TALL / 2, "text-anchor": "middle"}, `n/a: ${status === "ok" ? "lost in cleaning" : status}`));
        words.push(`${title}: n/a`);
        return;
      }
      // What strategies leave is drawn on one scale, as far as it is in one unit.
      const alike = after ? traces.filter((one) => one.after && one.series.unit === series.unit) : [traces[number]];
      const reach = alike.filter((one) => one.get(region).some((value) => !Number.isNaN(value)));
      const low = Math.min(...reach.map((one) => one.series.low[region]));
      const high = Math.max(...reach.map((one) => one.series.high[region]));
      const y = (value) => top + TALL - 4 - ((TALL - 8) * (value - low)) / (high - low || 1);
      let path = "";
      values.forEach((value, i) => {
        if (Number.isNaN(value)) return;
        const begins = i === 0 || Number.isNaN(values[i - 1]);
        path += `${begins ? "M" : "L"}${x(i).toFixed(1)},${y(value).toFixed(1)}`;
        if (begins && (i + 1 === values.length || Number.isNaN(values[i + 1]))) path += "h0.6";
      });
      chart.append(make("path", {class: after ? "after" : "before", d: path}));
      chart.append(make("text", {x: LEFT - 6, y: top + 9, "text-anchor": "end"}, short(high)));
      chart.append(make("text", {x: LEFT - 6, y: top + TALL, "text-anchor": "end"}, short(low)));
      chart.append(make("text", {x: LEFT - 6, y: top + TALL / 2 + 4, "text-anchor": "end", class: "unit"}, unit(series)));
      words.push(`${title}: ${short(series.low[region])} to ${short(series.high[region])}${series.unit === "arbitrary" ? "" : " " + series.unit}`);
    });
    draw_time(chart, traces);
    chart.setAttribute("aria-label", `Series of ${name}. ${words.join("; ")}.`);
    return words.join("; ");
  }

  // Seconds below the last trace, at round numbers; volumes where the time is not known.
  function draw_time(chart, traces) {
    const {count, step} = traces[0];
    const [bottom, whole] = [traces.length * (TALL + GAP) - 8, count * (step || 1)];
    const power = 10 ** Math.floor(Math.log10(whole / 8));
    const jump = [1, 2, 5, 10].map((n) => n * power).find((n) => whole / n <= 8);
    let d = "";
    // A volume stands for the time around it, as in the pictures above.
    for (let n = 0; n * jump < whole; n++) {
      const x = LEFT + (RIGHT - LEFT) * (n * jump / (step || 1) + 0.5) / count;
      d += `M${x.toFixed(1)},${bottom}v4`;
      chart.append(make("text", {x, y: bottom + 16, "text-anchor": "middle"}, short(n * jump)));
    }
    chart.append(make("path", {class: "axis ticks", d}));
    const words = step ? `Time (s); ${count} volumes of ${short(step)} s` : "Volume";
    chart.append(make("text", {x: (LEFT + RIGHT) / 2, y: bottom + 34, "text-anchor": "middle"}, words));
  }

  const pickers = document.querySelectorAll(".picker");
  pickers.forEach((picker) => picker.addEventListener("pointerenter", () => load(picker)));
  const comes = [...pickers, ...document.querySelectorAll("figure[data-live]")];
  const begin = (node) => (node.classList.contains("picker") ? load(node) : enliven(node));
  if ("IntersectionObserver" in window) {
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries.filter((each) => each.isIntersecting)) {
        watcher.unobserve(entry.target);
        begin(entry.target);
      }
    }, {rootMargin: "200px"});
    comes.forEach((node) => watcher.observe(node));
  }

  // Where one is: in the contents, the run that is read is unfolded.
  const contents = document.querySelector("nav.contents");
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let node = target.closest("details"); node; node = node.parentElement.closest("details")) node.open = true;
    target.scrollIntoView();
  };
  if (contents) {
    const box = contents.querySelector("details");
    const links = new Map([...contents.querySelectorAll("a")].map((link) => [document.getElementById(link.hash.slice(1)), link]));
    const narrow = window.matchMedia("(max-width: 64rem)");
    const fold = () => { box.open = !narrow.matches; };
    narrow.addEventListener("change", fold);
    fold();
    contents.classList.add("follows");
    const follow = () => {
      let here = null;
      for (const [target, link] of links) {
        if (target?.getClientRects().length && target.getBoundingClientRect().top < innerHeight / 3) here = link;
      }
      here = here || links.values().next().value;
      for (const link of links.values()) {
        if (link === here) link.setAttribute("aria-current", "location");
        else link.removeAttribute("aria-current");
      }
      for (const item of contents.querySelectorAll(".of-run")) item.classList.toggle("here", item.contains(here));
      if (!narrow.matches) here.scrollIntoView({block: "nearest"});
    };
    let due = 0;
    window.addEventListener("scroll", () => { cancelAnimationFrame(due); due = requestAnimationFrame(follow); }, {passive: true});
    contents.addEventListener("click", (event) => {
      if (event.target.closest("a") && narrow.matches) box.open = false;
      // The same place again: there is no change of address then.
      if (event.target.closest("a")?.hash === location.hash) reveal();
    });
    follow();
  }
  window.addEventListener("hashchange", reveal);
  reveal();

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

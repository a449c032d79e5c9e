"use strict";
// Names and values under the pointer, in a figure that is opened by itself or lies in a
// frame of a page. The page is told what is said, and tells which region to mark.
(async () => {
  const root = document.documentElement;
  const about = JSON.parse(root.querySelector("metadata").textContent);
  const said = root.querySelector("#said");
  const cross = root.querySelector("#cross");
  const pixels = async (href) => {
    const image = new Image();
    // Not decode(): it waits until the frame is seen.
    await new Promise((loaded) => { image.onload = loaded; image.src = href; });
    const canvas = document.createElementNS("http://www.w3.org/1999/xhtml", "canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, image.width, image.height);
  };
  const colour = ({data, width}, column, row) =>
    [...data.subarray(4 * (row * width + column), 4 * (row * width + column) + 4)];
  const tell_page = (message) => { if (parent !== window) parent.postMessage(message, "*"); };
  const spell = (value) => value.toFixed(2).replace("-", "\u2212");

  // Rows of a figure are in an order of their own, and may hold several regions each.
  const name = (cell) => {
    const [first, last] = [cell * about.size, Math.min((cell + 1) * about.size, about.names.length) - 1];
    return first === last ? about.names[first] : `${about.names[first]} to ${about.names[last]}`;
  };

  // A matrix: its values are where its colours are in the bar beside it.
  const matrix = async () => {
    const [cells, bar] = await Promise.all([...root.querySelectorAll("image")].slice(0, 2)
      .map((image) => pixels(image.getAttribute("href"))));
    const values = new Map();
    for (let row = 0; row < bar.height; row++) {
      const share = (row + 0.5) / bar.height;
      values.set(colour(bar, 0, row).join(), about.high + share * (about.low - about.high));
    }
    return (column, row) => {
      const value = values.get(colour(cells, column, row).join());
      const words = value !== undefined ? spell(value) : row === column ? "itself" : "n/a";
      return `${name(row)} \u2013 ${name(column)}: ${words}`;
    };
  };

  // A carpet: a region and a time; rows and columns may each be the mean of several.
  const carpet = () => (column, row) => {
    const first = column * about.volumes;
    const last = Math.min(first + about.volumes, about.count) - 1;
    const time = about.step ? `${+(first * about.step).toFixed(1)} s, ` : "";
    return `${name(row)}: ${time}volume ${first}${last > first ? ` to ${last}` : ""}`;
  };

  // Slices: which region a voxel belongs to is in rasters of their own, a byte in each.
  const slices = async (panel) => {
    const bytes = await Promise.all(panel.regions.map(pixels));
    panel.region = (column, row) =>
      bytes.reduce((sum, each, n) => sum + each.data[4 * (row * each.width + column)] * 256 ** n, 0) - 1;
    return (column, row) => about.names[panel.region(column, row)] ?? "";
  };

  const panels = about.panels;
  for (const panel of panels) panel.tell = await {matrix, carpet, slices}[about.kind](panel);
  let at = null;
  const show = () => {
    const {panel, column, row} = at;
    const [left, top, wide, high] = panel.box;
    const [x, y] = [left + (column + 0.5) * wide / panel.columns, top + (row + 0.5) * high / panel.rows];
    said.textContent = panel.tell(column, row);
    tell_page({said: said.textContent});
    cross.setAttribute("d", about.kind === "matrix" ? `M${left},${y}H${left + wide}M${x},${top}V${top + high}` : "");
  };
  const point = (event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(root.getScreenCTM().inverse());
    for (const panel of panels) {
      const [left, top, wide, high] = panel.box;
      const column = Math.floor((place.x - left) / wide * panel.columns);
      const row = Math.floor((place.y - top) / high * panel.rows);
      if (column < 0 || row < 0 || column >= panel.columns || row >= panel.rows) continue;
      at = {panel, column, row};
      show();
      return;
    }
    said.textContent = "";
    cross.setAttribute("d", "");
  };
  // The region at a place, as a row of the table.
  const region = ({panel, column, row}) => about.kind === "slices" ? panel.region(column, row) : about.rows[row * about.size];
  const choose = () => { if (at && region(at) >= 0) tell_page({chosen: region(at)}); };
  root.addEventListener("pointermove", point);
  root.addEventListener("pointerdown", point);
  root.addEventListener("click", choose);
  const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  root.addEventListener("keydown", (event) => {
    if (event.key === "Enter") choose();
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    at = at || {panel: panels[0], column: 0, row: 0};
    at.column = Math.min(at.panel.columns - 1, Math.max(0, at.column + step[0]));
    at.row = Math.min(at.panel.rows - 1, Math.max(0, at.row + step[1]));
    show();
  });

  // A region that is marked: its voxels, its row, or its row and column.
  const outline = (panel, chosen) => {
    const [left, top, wide, high] = panel.box;
    const [w, h] = [wide / panel.columns, high / panel.rows];
    let d = "";
    if (about.kind !== "slices") {
      const place = Math.floor(about.rows.indexOf(chosen) / about.size);
      if (place < 0) return d;
      d = `M${left - 4},${top + place * h}h${wide + 4}v${h}h${-wide - 4}z`;
      return about.kind === "carpet" ? d : d + `M${left + place * w},${top - 4}v${high + 4}h${w}v${-high - 4}z`;
    }
    for (let row = 0; row < panel.rows; row++) {
      for (let begin = 0, column = 0; column <= panel.columns; column++) {
        if (column < panel.columns && panel.region(column, row) === chosen) continue;
        if (column > begin) d += `M${(left + begin * w).toFixed(1)},${(top + row * h).toFixed(1)}h${((column - begin) * w).toFixed(1)}v${h.toFixed(1)}h${(-(column - begin) * w).toFixed(1)}z`;
        begin = column + 1;
      }
    }
    return d;
  };
  window.addEventListener("message", (event) => {
    if (event.source !== parent || !Number.isInteger(event.data.mark)) return;
    const chosen = event.data.mark;
    const d = panels.map((panel) => outline(panel, chosen)).join("");
    root.querySelector("#mark").setAttribute("d", d);
    const words = about.names[about.kind === "slices" ? chosen : about.rows.indexOf(chosen)] ?? "";
    said.textContent = d || !words ? words : `${words}: not on these pictures`;
  });
  if (parent !== window) {
    for (const side of ["width", "height"]) root.setAttribute(side, "100%");
  }
  root.setAttribute("tabindex", "0");
  root.dataset.ready = "";
  tell_page({ready: true});
})();

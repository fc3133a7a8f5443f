// Every query of every run: classes, queries and the photos found for them; and points of figures that say what they are.
// The page is whole without it. Data come from elements of this page, or, where they are too large for it, from files beside it.

const FEW = 60; // queries shown before a button asks for more
const NEAR = 14; // pixels within which a pointer means a point

/** An element with attributes (functions are listeners), and what stands in it. Text never becomes markup. */
function element(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...inside.filter((one) => one !== null && one !== undefined));
  return made;
}

/** Put other contents into an element; the focus stays on the button that is the same there, or on the nearest that is left. */
function refill(root, ...inside) {
  const key = root.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  root.replaceChildren(...inside);
  if (key === undefined) return;
  const same = [...root.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key);
  (same && !same.disabled ? same : root.querySelector("button:enabled"))?.focus({ preventScroll: true });
}

/** The numbers that a text of base64 holds. */
function unpacked(text, bits) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return bits === 32 ? new Uint32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
}

const plainName = (name) => name.replaceAll("_", " ");
const explored = JSON.parse(document.getElementById("explorer-index").textContent);
const waiting = new Map(); // part -> what is done with it once its file is read

/** Called by the files of runs beside the page. */
function tcnQueries(part, told) {
  waiting.get(part)?.resolve(told);
}

/** The data of a run: from this page, or from a file beside it. */
function runOf(run) {
  run.read ??= new Promise((resolve, reject) => {
    const here = document.getElementById(run.part);
    if (here) return resolve(JSON.parse(here.textContent));
    waiting.set(run.part, { resolve });
    document.head.append(element("script", { src: `${explored.folder}${run.part}.js`, error: () => reject(new Error(run.part)) }));
  }).then((told) => ({ nearest: unpacked(told.nearest, told.bits), ap: told.ap === null ? null : unpacked(told.ap, 16) }));
  return run.read;
}

/** The class of a style rule that has a sheet as its background; made when the first of its tiles is shown. */
function sheetClass(part) {
  const name = `tiles-${part}`;
  if (!sheetClass.made.has(name)) {
    sheetClass.made.add(name);
    const here = document.getElementById(part);
    const address = here ? `data:image/webp;base64,${here.textContent}` : `${explored.folder}${part}.webp`;
    document.head.append(element("style", {}, `.${name} { background-image: url("${address}"); }`));
  }
  return name;
}
sheetClass.made = new Set();

/** A small picture of a query or photo; a box with the name of its class where there is none. label: what it shows, empty where a text
 * beside it says so. */
function tile(task, kind, number, label, scale = 1) {
  const sheets = task.sheets;
  const role = label ? { role: "img", "aria-label": label, title: label } : { "aria-hidden": "true" };
  const place = sheets ? sheets.at[kind][number] : explored.none;
  if (place === undefined || place === explored.none) {
    return element("span", { ...role, class: "tile none" }, plainName(task.classes[task.of[kind][number]] ?? "?"));
  }
  const within = place % sheets.each;
  const made = element("span", { ...role, class: `tile ${sheetClass(sheets.parts[Math.floor(place / sheets.each)])}` });
  const side = sheets.side * scale;
  made.style.width = made.style.height = `${side}px`;
  made.style.backgroundSize = `${side * sheets.columns}px auto`;
  made.style.backgroundPosition = `${-(within % sheets.columns) * side}px ${-Math.floor(within / sheets.columns) * side}px`;
  return made;
}

for (const task of explored.tasks) {
  task.of = { queries: unpacked(task.queries, 32), photos: unpacked(task.photos, 32) };
  if (task.sheets) task.sheets.at = { queries: unpacked(task.sheets.queries, 32), photos: unpacked(task.sheets.photos, 32) };
}

const share = (value) => (value / explored.scale).toFixed(2);

/** The part of the page in which queries are looked at. */
class Explorer {
  constructor(root, tasks) {
    this.root = root;
    this.tasks = tasks;
    this.wanted = { task: 0, a: 0, b: 0, class: -1, order: "difference", query: -1, most: FEW };
    this.bars = element("div", { class: "bars" });
    this.list = element("div");
    this.answer = element("div", { class: "answer", "aria-live": "polite" });
    this.controls = element("div", { class: "controls" });
    root.append(this.controls, this.bars, this.list, this.answer);
    root.hidden = false;
    this.choose(0);
  }

  get task() {
    return this.tasks[this.wanted.task];
  }

  /** Take a task, its first run, and the first run of another row beside it. */
  choose(number) {
    const runs = this.tasks[number].runs;
    const other = runs.findIndex((run) => run.row !== runs[0].row);
    Object.assign(this.wanted, { task: number, a: 0, b: Math.max(other, 0), class: -1, query: -1, most: FEW });
    this.set({});
  }

  /** Change what is wanted, and show it once the two runs are read. */
  async set(changes) {
    Object.assign(this.wanted, changes);
    this.drawControls();
    const { task } = this;
    const asked = (this.asked = {});
    try {
      const [a, b] = await Promise.all([runOf(task.runs[this.wanted.a]), runOf(task.runs[this.wanted.b])]);
      if (asked !== this.asked) return; // something else was chosen meanwhile
      this.drawBars(a, b);
      this.drawList(a, b);
      await this.drawAnswer();
    } catch {
      this.list.replaceChildren(element("p", {}, location.protocol === "blob:"
        ? "MLflow shows this page without its folder: open report/index.html of the results folder, or download the artifacts."
        : `The files in ${explored.folder} can't be read: keep that folder beside this page.`));
    }
  }

  drawControls() {
    const { task, wanted } = this;
    const choice = (label, key, options, then) => {
      const select = element("select", { change: () => then(select.value) }, ...options.map(([value, text]) =>
        element("option", { value, selected: String(wanted[key]) === String(value) }, text)));
      select.name = key;
      return element("label", {}, `${label} `, select);
    };
    const runs = task.runs.map((run, at) => [at, run.name]);
    const counted = new Map();
    for (const one of task.of.queries) counted.set(one, (counted.get(one) ?? 0) + 1);
    const classes = [[-1, "all classes"], ...task.classes.map((name, at) => [at, plainName(name)]).filter(([at]) => counted.has(at))];
    const chosen = document.activeElement?.name;
    this.controls.replaceChildren(
      ...(this.tasks.length > 1 ? [choice("Data", "task", this.tasks.map((one, at) => [at, one.title]), (value) => this.choose(+value))] : []),
      choice("Run", "a", runs, (value) => this.set({ a: +value })),
      choice("beside", "b", runs, (value) => this.set({ b: +value })),
      choice("Class", "class", classes, (value) => this.set({ class: +value, query: -1, most: FEW })),
      choice("Order", "order", [["difference", "where the two differ most"], ["ahead", "the first run furthest ahead"],
        ["behind", "the first run furthest behind"], ["hardest", "hardest for the first run"], ["easiest", "easiest for the first run"],
        ["listed", "as listed"]], (value) => this.set({ order: value, most: FEW })));
    if (chosen) this.controls.querySelector(`[name=${chosen}]`)?.focus();
  }

  /** A bar for each class and run: mean AP; it leads to the class's queries. */
  drawBars(a, b) {
    const { task, wanted } = this;
    if (a.ap === null) return this.bars.replaceChildren();
    const sums = new Map();
    task.of.queries.forEach((name, query) => {
      const sum = sums.get(name) ?? { name, number: 0, a: 0, b: 0 };
      sum.number += 1;
      sum.a += a.ap[query];
      sum.b += b.ap ? b.ap[query] : 0;
      sums.set(name, sum);
    });
    const rows = [...sums.values()].sort((x, y) => x.a / x.number - y.a / y.number);
    const two = b.ap !== null && wanted.a !== wanted.b;
    const bar = (kind, value) => element("span", { class: `bar ${kind}`, style: `width: ${(value / explored.scale) * 100}%` });
    const items = rows.map((row) => {
      const [first, second] = [row.a / row.number, row.b / row.number];
      return element("li", {}, element("button", {
        type: "button", "data-key": `class-${row.name}`, "aria-pressed": String(wanted.class === row.name),
        click: () => { this.set({ class: wanted.class === row.name ? -1 : row.name, query: -1, most: FEW }); this.list.scrollIntoView({ block: "nearest" }); },
      }, element("span", { class: "name" }, plainName(task.classes[row.name])),
      element("span", { class: "pair" }, bar("first", first), two ? bar("second", second) : null),
      element("span", { class: "value" }, share(first) + (two ? ` · ${share(second)}` : ""))));
    });
    const open = this.bars.querySelector("details")?.open ?? true;
    const top = this.bars.querySelector("ul")?.scrollTop ?? 0;
    const list = element("ul", { tabindex: "0", "aria-label": "classes by mean average precision" }, ...items);
    refill(this.bars, element("details", { open }, element("summary", {}, `Mean AP of each class, hardest first: ${task.runs[wanted.a].name}`
      + (two ? ` · ${task.runs[wanted.b].name}` : "")), list));
    list.scrollTop = top;
  }

  /** Numbers of the queries to be shown, in order. */
  ordered(a, b) {
    const { task, wanted } = this;
    const numbers = [...task.of.queries.keys()].filter((query) => wanted.class < 0 || task.of.queries[query] === wanted.class);
    const gap = (query) => a.ap[query] - b.ap[query];
    const keys = { difference: (query) => -Math.abs(gap(query)), ahead: (query) => -gap(query), behind: gap, hardest: (query) => a.ap[query],
      easiest: (query) => -a.ap[query] };
    const key = keys[wanted.order];
    if (!key || a.ap === null || (b.ap === null && !["hardest", "easiest"].includes(wanted.order))) return numbers;
    return numbers.sort((x, y) => key(x) - key(y) || x - y);
  }

  drawList(a, b) {
    const { task, wanted } = this;
    this.numbers = this.ordered(a, b);
    const two = wanted.a !== wanted.b;
    const value = (run, query) => (run.ap === null ? "?" : share(run.ap[query]));
    const items = this.numbers.slice(0, wanted.most).map((query) => {
      const name = plainName(task.classes[task.of.queries[query]]);
      const text = `${value(a, query)}${two ? ` · ${value(b, query)}` : ""}`;
      return element("li", {}, element("button", {
        type: "button", "data-query": query, "data-key": `query-${query}`, "aria-pressed": String(query === wanted.query), title: name,
        "aria-label": `query sketch of ${name}, AP ${text}`, click: () => this.set({ query }),
      }, tile(task, "queries", query, ""), element("span", { class: "value" }, text)));
    });
    const rest = this.numbers.length - items.length;
    refill(this.list,
      element("p", { class: "soft" }, `${this.numbers.length} queries${wanted.class < 0 ? "" : ` of ${plainName(task.classes[wanted.class])}`}; `
        + `AP of ${task.runs[wanted.a].name}${two ? ` · ${task.runs[wanted.b].name}` : ""}. Choose one to see what it finds.`),
      element("ul", { class: "queries", "aria-label": "queries" }, ...items),
      ...(rest > 0 ? [element("button", { type: "button", class: "more", "data-key": "more", click: () => this.set({ most: wanted.most + 4 * FEW }) }, `${rest} more`)] : []));
  }

  /** What each run finds for the chosen query: the two runs, then the first run of each other row. */
  async drawAnswer() {
    const { task, wanted } = this;
    if (wanted.query < 0) return this.answer.replaceChildren();
    const query = wanted.query;
    const seen = new Set([task.runs[wanted.a].row, task.runs[wanted.b].row]);
    const shown = [...new Set([wanted.a, wanted.b])];
    task.runs.forEach((run, at) => { if (!seen.has(run.row)) { seen.add(run.row); shown.push(at); } });
    const read = await Promise.all(shown.map((at) => runOf(task.runs[at])));
    if (query !== this.wanted.query || task !== this.task) return;
    const name = plainName(task.classes[task.of.queries[query]]);
    const rows = shown.map((at, place) => {
      const run = task.runs[at], told = read[place], many = told.nearest.length / task.of.queries.length;
      const photos = [...told.nearest.subarray(query * many, (query + 1) * many)].map((photo, rank) => {
        const right = task.of.photos[photo] === task.of.queries[query];
        const label = `rank ${rank + 1}: ${plainName(task.classes[task.of.photos[photo]])}, ${right ? "right" : "wrong"}`;
        return element("li", { class: right ? "right" : "wrong" }, tile(task, "photos", photo, label),
          element("span", { class: "mark", "aria-hidden": "true" }, right ? "✓" : "✗"));
      });
      return element("div", { class: "row" }, element("p", {}, element("a", { href: `#${run.anchor}` }, run.name),
        told.ap === null ? "" : ` AP ${share(told.ap[query])}`), element("ol", { "aria-label": `photos that ${run.name} finds first` }, ...photos));
    });
    const at = this.numbers.indexOf(query);
    const step = (by, text) => element("button", { type: "button", "data-key": text, disabled: !(at >= 0 && this.numbers[at + by] !== undefined),
      click: () => this.set({ query: this.numbers[at + by] }) }, text);
    refill(this.answer, element("div", { class: "asked" }, tile(task, "queries", query, `query sketch of ${name}`, 2), element("div", {},
      element("h3", {}, `Query sketch of ${name}`), element("p", {}, step(-1, "← previous"), " ", step(1, "next →"), " ",
        element("button", { type: "button", click: () => { this.list.querySelector(`[data-query="${query}"]`)?.focus(); this.set({ query: -1 }); } }, "close")))), ...rows);
    this.answer.scrollIntoView({ block: "nearest" });
  }

  /** Show one query of a task. */
  open(task, query) {
    const number = this.tasks.indexOf(task);
    if (number !== this.wanted.task) this.choose(number);
    this.set({ query, class: task.of.queries[query], most: FEW });
    document.getElementById("queries").scrollIntoView();
  }
}

const browsed = explored.tasks.filter((task) => task.runs.length);
const explorer = browsed.length ? new Explorer(document.getElementById("explorer"), browsed) : null;

/** Where a picture stands within its frame: without the frame's padding, in pixels of the page. */
function boxOf(image) {
  const style = getComputedStyle(image);
  const [left, top] = [parseFloat(style.paddingLeft), parseFloat(style.paddingTop)];
  return { left: image.offsetLeft + left, top: image.offsetTop + top, width: image.clientWidth - 2 * left, height: image.clientHeight - 2 * top };
}

/** Let the points of a figure say what they are: by pointer, by finger, and by the arrow keys. */
function nameable(task, map) {
  const figure = document.getElementById(map.figure);
  const image = figure?.querySelector("img");
  if (!image) return;
  const scale = explored.scale;
  const [x, y, classes, panel, photo, number] = [unpacked(map.x, 16), unpacked(map.y, 16), unpacked(map.class, 32), unpacked(map.panel, 16),
    unpacked(map.photo, 16), unpacked(map.number, 32)];
  const ring = element("span", { class: "ring", hidden: true });
  const tip = element("span", { class: "tip", role: "status", hidden: true });
  const frame = element("div", { class: "map", tabindex: "0", role: "application",
    "aria-label": `${figure.querySelector("h3").textContent}: arrow keys go from point to point, Enter opens a sketch` });
  image.before(frame);
  frame.append(image, ring, tip);
  let current = -1;

  const show = (point) => {
    current = point;
    ring.hidden = tip.hidden = point < 0;
    if (point < 0) return;
    const box = boxOf(image), kind = photo[point] ? "photos" : "queries";
    const [left, top] = [box.left + (x[point] / scale) * box.width, box.top + (y[point] / scale) * box.height];
    ring.style.left = `${left}px`;
    ring.style.top = `${top}px`;
    const name = map.classes[classes[point]];
    const known = map.lists[panel[point]]; // else the run's lists are not those that can be looked at
    tip.replaceChildren(...(known && task.sheets ? [tile(task, kind, number[point], "")] : []),
      element("span", {}, `${photo[point] ? "photo" : "sketch"} of ${plainName(name)}`, element("br"), element("small", {}, map.panels[panel[point]])));
    tip.style.left = `${Math.max(0, Math.min(left + 12, frame.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${top + 12}px`;
  };
  const nearestTo = (event) => {
    const box = boxOf(image), corner = frame.getBoundingClientRect();
    const [left, top] = [event.clientX - corner.left - box.left, event.clientY - corner.top - box.top];
    let best = -1, least = NEAR * NEAR;
    for (let point = 0; point < x.length; point += 1) {
      const far = ((x[point] / scale) * box.width - left) ** 2 + ((y[point] / scale) * box.height - top) ** 2;
      if (far < least) [best, least] = [point, far];
    }
    return best;
  };
  const openSketch = (point) => {
    if (explorer && point >= 0 && !photo[point] && map.lists[panel[point]]) explorer.open(task, number[point]);
  };
  /** The nearest point in a direction, as (right, down). */
  const towards = (right, down) => {
    let best = current, least = Infinity;
    for (let point = 0; point < x.length; point += 1) {
      const [across, along] = [x[point] - x[current], y[point] - y[current]];
      const ahead = across * right + along * down, aside = Math.abs(across * down) + Math.abs(along * right);
      if (point !== current && ahead > 0 && ahead + 2 * aside < least) [best, least] = [point, ahead + 2 * aside];
    }
    return best;
  };
  const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  frame.addEventListener("pointermove", (event) => show(nearestTo(event)));
  frame.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") show(-1); });
  frame.addEventListener("click", (event) => {
    const point = nearestTo(event);
    show(point);
    openSketch(point);
  });
  frame.addEventListener("keydown", (event) => {
    if (event.key === "Escape") show(-1);
    else if (event.key === "Enter") openSketch(current);
    else if (!ways[event.key]) return;
    else show(current < 0 ? 0 : towards(...ways[event.key]));
    event.preventDefault();
  });
  frame.addEventListener("blur", () => show(-1));
}

for (const task of explored.tasks) for (const map of task.maps) nameable(task, map);

// From the figure of hard classes, and from a run's entry, to its queries.
if (explorer) {
  const link = (text, then) => element("a", { href: "#queries", click: then }, text);
  const chosen = (number) => { if (explorer.wanted.task !== number) explorer.choose(number); };
  browsed.forEach((task, number) => document.querySelector(`#${CSS.escape(`figure-${task.slug}-class-precision`)} figcaption`)
    ?.append(" ", link("Each class's queries.", () => chosen(number))));
  browsed.forEach((task, number) => task.runs.forEach((run, at) => {
    const facts = document.querySelector(`#${CSS.escape(run.anchor)} dl`);
    facts?.append(element("dt", {}, "queries"), element("dd", {}, link("what each query finds", () => {
      chosen(number);
      explorer.set({ a: at, order: "hardest" });
    })));
  }));
  // A row that is marked in a table is the run that is looked at; what was looked at stands beside it.
  document.addEventListener("picked", ({ detail }) => {
    // The longest, since the name of one data set may begin that of another.
    const [its] = browsed.filter((task) => detail.table.startsWith(`table-${task.slug}-`)).sort((x, y) => y.slug.length - x.slug.length);
    if (detail.on && its?.runs.some((run) => run.row === detail.name)) chosen(browsed.indexOf(its));
    const { task, wanted } = explorer, at = task.runs.findIndex((run) => run.row === detail.name);
    if (detail.on && at >= 0 && at !== wanted.a) explorer.set({ a: at, b: wanted.a });
  });
}

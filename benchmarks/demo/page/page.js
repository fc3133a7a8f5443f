// Draw and search: strokes or the number of a query sketch go to this page's own server, ranked photos come back.
"use strict";

const part = id => document.getElementById(id);
const canvas = part("canvas"), pen = canvas.getContext("2d");
const GALLERIES = {unseen: "photos of the unseen classes", every: "photos of unseen and seen classes", folder: "your own folder"};
const SHOWN = 40;  // query sketches at a time
let state, strokes = [], stroke = null, picked = null, shown = SHOWN;
let asking = false, again = false;

function made(tag, text, attributes = {}) {
  const found = document.createElement(tag);
  if (text !== null) found.textContent = text;
  Object.assign(found, attributes);
  return found;
}

const plain = name => name.replaceAll("_", " ");

function say(text, error = false) {
  part("status").textContent = text;
  part("status").className = error ? "error" : "";
}

// --- drawing

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
}

function paint() {
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.lineWidth = 8;  // 3 of 256 pixels, as the server draws it
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = "#000";
  for (const [xs, ys] of strokes) {
    pen.beginPath();
    pen.moveTo(xs[0], ys[0]);
    xs.forEach((x, i) => pen.lineTo(x, ys[i]));
    if (xs.length === 1) pen.lineTo(xs[0], ys[0]);
    pen.stroke();
  }
}

function add(event) {
  // A fast pen gives several points between two events.
  const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  for (const one of events.length ? events : [event]) {
    const [x, y] = place(one);
    stroke[0].push(Math.round(x * 10) / 10);
    stroke[1].push(Math.round(y * 10) / 10);
  }
  paint();
}

canvas.addEventListener("pointerdown", event => {
  if (event.button !== 0 || stroke) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  stroke = [[], []];
  stroke.pointer = event.pointerId;
  strokes.push(stroke);
  const [x, y] = place(event);
  stroke[0].push(x);
  stroke[1].push(y);
  paint();
});
canvas.addEventListener("pointermove", event => {
  if (!stroke || event.pointerId !== stroke.pointer) return;
  add(event);
  if (stroke[0].length > 5) ask();
});
function lift(event) {
  if (!stroke || event.pointerId !== stroke.pointer) return;
  stroke = null;
  ask();
}
canvas.addEventListener("pointerup", lift);
canvas.addEventListener("pointercancel", lift);
part("undo").addEventListener("click", () => { strokes.pop(); paint(); ask(); });
part("clear").addEventListener("click", () => { strokes = []; paint(); ask(); });

// --- asking

const drawing = () => !part("draw").hidden;
const runs = () => [...part("runs").querySelectorAll("input:checked")].map(box => Number(box.value));

// One question at a time: while it is answered, further strokes only ask for another one afterwards.
async function ask() {
  if (asking) { again = true; return; }
  asking = true;
  try {
    do {
      again = false;
      await answer();
    } while (again);
  } finally {
    asking = false;
  }
}

async function answer() {
  const gallery = part("gallery").value;
  let path, body;
  if (drawing() && !strokes.length) {
    clear();
    say("Draw something: a mouse, a pen or a finger will do. Each run shows what it finds.");
    return;
  }
  if (drawing()) {
    path = "draw";
    body = {strokes: strokes.map(([xs, ys]) => [xs, ys]), runs: runs(), gallery, wanted: part("wanted").value || null};
  } else if (picked === null) {
    clear();
    say("Pick a sketch: each run shows what it finds for it.");
    return;
  } else {
    path = "query";
    body = {task: Number(part("task").value), number: picked, runs: runs(), gallery};
  }
  let found;
  try {
    const response = await fetch(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});
    found = await response.json();
  } catch {
    found = {error: "The server does not answer: start the demo again, then load this page again."};
  }
  if (found.error) {
    clear();
    say(found.error, !(drawing() && stroke));  // the first touch of the canvas is no mistake yet
    return;
  }
  show(found, path);
}

function clear() {
  part("columns").replaceChildren();
  part("given").hidden = true;
}

// --- showing

function show(found, path) {
  part("given").hidden = !found.picture;
  if (found.picture) part("given").firstChild.src = found.picture;
  const known = found.answers.some(answer => answer.photos.some(photo => photo.right !== null));
  say(path === "query" ? `Query sketch of class “${plain(found.wanted)}”.` : known ? `Drawing of class “${plain(found.wanted)}”.`
    : found.wanted ? `This gallery knows no class “${plain(found.wanted)}”: nothing is marked.` : "What each run finds, nearest first:");
  part("columns").replaceChildren(...found.answers.map(column));
}

function where(run) {
  const task = state.tasks[run.task];
  return `${task.title}, split ${task.split}, seed ${run.seed}`;
}

function column(answer) {
  const own = made("article", null, {className: "run"});
  const run = state.runs[answer.run];
  own.append(made("h2", run.title), made("p", where(run), {className: "count"}));
  own.append(made("p", `${answer.searched.toLocaleString("en")} photos in ${
    answer.milliseconds < 1 ? "less than 1" : answer.milliseconds.toFixed(0)} ms`, {className: "count"}));
  if (answer.photos.some(photo => photo.right !== null)) {
    const right = answer.photos.filter(photo => photo.right).length;
    own.append(made("p", `${right} of the first ${answer.photos.length} right; `
      + (answer.first_right === null ? "no photo of the class is there" : `the first right one is at rank ${answer.first_right}`),
      {className: "count"}));
  }
  const list = made("ol", null);
  answer.photos.forEach((photo, i) => {
    const mark = photo.right === null ? "" : photo.right ? "right" : "wrong";
    const name = photo.name === null ? "" : plain(photo.name);
    const item = made("li", null, {className: mark});
    item.append(made("img", null, {src: `picture/${photo.set}/${photo.number}`, loading: "lazy",
      alt: name ? `photo of class ${name}` : `photo ${photo.number + 1} of the folder`}));
    if (name) item.append(made("span", name, {className: photo.seen ? "seen" : ""}), made("br", null));
    item.append(made("span", `${i + 1}. ${photo.distance.toFixed(3)}`, {title: "rank and distance"}));
    if (mark) item.append(" ", made("span", mark, {className: "mark"}));
    list.append(item);
  });
  own.append(list);
  return own;
}

// --- picking

function classes() {
  const task = state.tasks[Number(part("task").value)];
  part("class").replaceChildren(...task.classes.map((one, i) => made("option", plain(one.name), {value: i})));
  sketches();
}

function sketches() {
  const task = state.tasks[Number(part("task").value)];
  const numbers = task.classes[Number(part("class").value)].queries;
  part("sketches").replaceChildren(...numbers.slice(0, shown).map((number, i) => {
    const button = made("button", null, {type: "button"});
    button.setAttribute("aria-pressed", String(number === picked));
    button.append(made("img", null, {src: `picture/${task.set}/${number}`, loading: "lazy", alt: `query sketch ${i + 1}`}));
    button.addEventListener("click", () => {
      picked = number;
      for (const other of part("sketches").children) other.setAttribute("aria-pressed", String(other === button));
      ask();
    });
    return button;
  }));
  part("further").hidden = numbers.length <= shown;
}

part("task").addEventListener("change", () => { picked = null; shown = SHOWN; classes(); ask(); });
part("class").addEventListener("change", () => { picked = null; shown = SHOWN; sketches(); ask(); });
part("further").addEventListener("click", () => { shown += SHOWN; sketches(); });
part("gallery").addEventListener("change", () => ask());
part("wanted").addEventListener("change", () => ask());

function turn(draw) {
  part("draw").hidden = !draw;
  part("pick").hidden = draw;
  part("to-draw").setAttribute("aria-pressed", String(draw));
  part("to-pick").setAttribute("aria-pressed", String(!draw));
  ask();
}
part("to-draw").addEventListener("click", () => turn(true));
part("to-pick").addEventListener("click", () => turn(false));

// --- beginning

async function begin() {
  try {
    state = await (await fetch("state")).json();
  } catch {
    say("The server does not answer: start the demo again, then load this page again.", true);
    return;
  }
  const notes = [...state.notes, ...state.tasks.filter(task => task.note).map(task => `${task.title}: ${task.note}`)];
  for (const note of notes) part("about").after(made("p", note));
  state.runs.forEach((run, i) => {
    const box = made("input", null, {type: "checkbox", value: i, checked: i < 4});
    box.addEventListener("change", () => ask());
    const label = made("label", null);
    label.append(box, ` ${run.title}: ${where(run)}`);
    part("runs").append(label);
  });
  if (state.generalised) GALLERIES.unseen = "the photos that the run was scored on";
  part("gallery").append(...state.galleries.map(name => made("option", GALLERIES[name], {value: name})));
  part("task").append(...state.tasks.map((task, i) => made("option", `${task.title}, split ${task.split}`, {value: i})));
  const unseen = state.tasks.flatMap(task => task.classes.map(one => one.name)), seen = state.tasks.flatMap(task => task.seen);
  for (const [label, names] of [["unseen classes", unseen], ["seen classes", seen]]) {
    if (!names.length) continue;
    const group = made("optgroup", null, {label});
    group.append(...[...new Set(names)].sort().map(name => made("option", plain(name), {value: name})));
    part("wanted").append(group);
  }
  classes();
  ask();
}
begin();

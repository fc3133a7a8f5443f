// Tables that sort and filter, and rows that are marked wherever they stand: in the report and the leaderboard, which are whole without it.
"use strict";

const MANY_ROWS = 8; // from here on a table has a filter

/** The rows of a table, in blocks that each begin with a section row or with nothing. */
function blocksOf(table) {
  const blocks = [{ head: null, rows: [] }];
  for (const row of table.tBodies[0].rows) {
    if (row.classList.contains("section")) blocks.push({ head: row, rows: [] });
    else blocks[blocks.length - 1].rows.push(row);
  }
  return blocks;
}

/** What a cell is sorted by: the number that it keeps, else the one that it begins with ("−0.030 ± 0.004" is -0.03), else its text. */
function keyOf(cell) {
  if (cell?.dataset.value && Number.isFinite(+cell.dataset.value)) return +cell.dataset.value;
  const text = cell ? cell.textContent.trim() : "";
  const number = text.replace("−", "-").match(/^[+-]?[\d,]*\.?\d+/);
  return number ? parseFloat(number[0].replace(/,/g, "")) : text;
}

/** Numbers before words, words by the alphabet; an empty cell or a dash comes last in both directions. */
function compare(a, b, sign) {
  const empty = (key) => key === "" || key === "–";
  if (empty(a) || empty(b)) return empty(a) - empty(b);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
}

/** Sort a table's blocks by a column, numbers from the largest and words by the alphabet; then the other way; then as they were. */
function sortBy(table, blocks, header, column) {
  const ways = header.classList.contains("number") ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
  const way = ways[(ways.indexOf(header.getAttribute("aria-sort")) + 1) % ways.length];
  for (const other of table.tHead.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", way);
  for (const block of blocks) {
    let rows = block.rows;
    if (way !== "none") {
      // Chance and ceiling stay below the rows that they are the measure of.
      const own = rows.filter((row) => !row.classList.contains("reference"));
      own.sort((a, b) => compare(keyOf(a.cells[column]), keyOf(b.cells[column]), way === "ascending" ? 1 : -1));
      rows = own.concat(rows.filter((row) => row.classList.contains("reference")));
    }
    if (block.head) table.tBodies[0].append(block.head);
    table.tBodies[0].append(...rows);
  }
}

/** Show the rows that hold the text, and the section rows above any of them. */
function filterBy(blocks, text) {
  for (const block of blocks) {
    for (const row of block.rows) row.hidden = !row.textContent.toLowerCase().includes(text.toLowerCase());
    if (block.head) block.head.hidden = block.rows.every((row) => row.hidden);
  }
}

/** Put what an element holds into a button. */
function buttonIn(element) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...element.childNodes);
  element.append(button);
  return button;
}

/** Mark the rows of one name in every table, or take the mark away; and tell other parts of the page. */
function pick(name, table) {
  let on = false;
  for (const button of document.querySelectorAll("tbody td:first-child > button")) {
    if (button.textContent.trim() !== name) continue;
    on = button.closest("tr").classList.toggle("picked");
    button.setAttribute("aria-pressed", on);
  }
  document.dispatchEvent(new CustomEvent("picked", { detail: { name, on, table } }));
}

for (const figure of document.querySelectorAll("figure.table")) {
  const table = figure.querySelector("table");
  const blocks = blocksOf(table);
  const rows = blocks.flatMap((block) => block.rows);
  const headers = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  if (rows.length > 1) {
    headers.forEach((header, column) => {
      header.setAttribute("aria-sort", "none");
      buttonIn(header).addEventListener("click", () => sortBy(table, blocks, header, column));
    });
  }
  if (rows.length > MANY_ROWS) {
    const filter = document.createElement("input");
    filter.type = "search";
    filter.placeholder = "filter rows";
    filter.setAttribute("aria-label", "filter rows of " + figure.querySelector("figcaption").textContent);
    filter.addEventListener("input", () => filterBy(blocks, filter.value));
    figure.querySelector(".scroll").before(filter);
  }
  for (const row of rows) {
    const name = row.cells[0].textContent.trim();
    if (!name || row.classList.contains("reference") || row.cells[0].querySelector("a")) continue;
    const button = buttonIn(row.cells[0]);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => pick(name, figure.id));
  }
}

"use strict";

// Without this script the page shows everything; with it the table of videos sorts and filters.

function sortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];

  function sort(column, direction) {
    const numeric = heads[column].classList.contains("number");
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row) => {
      const cell = row.cells[column];
      return { row, value: numeric ? parseFloat(cell.dataset.value) : cell.textContent };
    });
    rows.sort((a, b) => {
      if (!numeric) return sign * a.value.localeCompare(b.value, "en", { numeric: true });
      if (isNaN(a.value) || isNaN(b.value)) return isNaN(a.value) - isNaN(b.value); // no number: last either way
      return sign * (a.value - b.value);
    });
    body.append(...rows.map((entry) => entry.row));
    heads.forEach((head, k) => head.setAttribute("aria-sort", k === column ? direction : "none"));
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const other = first === "descending" ? "ascending" : "descending";
      sort(column, head.getAttribute("aria-sort") === first ? other : first);
    });
  });
}

function filterable(box) {
  const input = box.querySelector("input");
  const told = box.querySelector("output");
  const rows = [...document.getElementById(input.getAttribute("aria-controls")).tBodies[0].rows];
  const texts = rows.map((row) =>
    [...row.querySelectorAll("[data-text]")].map((cell) => cell.textContent).join(" ").toLowerCase()
  );
  box.hidden = false;

  function filter() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, k) => {
      row.hidden = !words.every((word) => texts[k].includes(word));
      shown += !row.hidden;
    });
    told.textContent = words.length ? `${shown} of ${rows.length} videos` : `${rows.length} videos`;
  }

  input.addEventListener("input", filter);
  filter();
}

document.querySelectorAll("table[data-sortable]").forEach(sortable);
document.querySelectorAll(".filter").forEach(filterable);

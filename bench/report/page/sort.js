"use strict";

const collator = new Intl.Collator("en", { numeric: true });

/** Numbers before texts, both before what is missing (undefined), whatever the direction. */
function compare(left, right, sign) {
  const rank = (key) => (key === undefined ? 2 : typeof key === "string" ? 1 : 0);
  if (rank(left) !== rank(right)) return rank(left) - rank(right);
  if (left === undefined || left === right) return 0;
  return sign * (typeof left === "string" ? collator.compare(left, right) : left - right);
}

/** A sorted copy; order is {column, direction} or null, which leaves the items as they are. */
function sorted(items, order, keyOf) {
  if (!order) return [...items];
  const sign = order.direction === "ascending" ? 1 : -1;
  return [...items].sort((a, b) => compare(keyOf(a, order.column), keyOf(b, order.column), sign));
}

/** Makes the heads of a table's columns buttons that call arrange(order): ascending, descending, as it was. */
function sortable(table, arrange) {
  const heads = [...table.querySelectorAll("thead th[scope=col]")];
  for (const [column, head] of heads.entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    head.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      const direction = next[head.getAttribute("aria-sort")];
      for (const other of heads) other.setAttribute("aria-sort", other === head ? direction : "none");
      arrange(direction === "none" ? null : { column, direction });
    });
  }
}

function cellKey(row, column) {
  const { number, text } = row.cells[column].dataset;
  return number === undefined ? text : Number(number);
}

for (const table of document.querySelectorAll("table.sortable")) {
  // Each block of rows is a body of its own, and keeps them.
  const bodies = [...table.tBodies].map((body) => [body, [...body.querySelectorAll("tr:not(.block)")]]);
  sortable(table, (order) => {
    for (const [body, rows] of bodies) body.append(...sorted(rows, order, cellKey));
  });
}

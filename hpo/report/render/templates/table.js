"use strict";
// Tables of many rows: sorted by a click on a header, filtered by text and by one column's values, shown in pages.
// Texts come from a study and are trusted with nothing: they reach the page as textContent alone.
(() => {
  const PAGE = matchMedia("(max-width: 40rem)").matches ? 20 : 50;
  const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const duration = (seconds) => {
    if (Math.round(seconds * 10) / 10 < 60) return seconds.toFixed(1) + " s";
    const minutes = Math.floor(Math.round(seconds) / 60);
    const two = (n) => String(n).padStart(2, "0");
    return minutes >= 60 ? `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min` : `${minutes} min ${two(Math.round(seconds) % 60)} s`;
  };
  const kinds = {
    text: String,
    count: (value) => whole.format(value),
    number: (value) => String(Number.isInteger(value) ? value : Number(value.toPrecision(4))),
    share: (value) => (100 * value).toFixed(2) + " %",
    seconds: duration,
  };
  const written = (kind, value) => (value === null ? "-" : typeof value === "string" ? value : kinds[kind](value));
  const make = (tag, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };

  const show = (place, { columns, rows, choose }) => {
    const lower = rows.map((row) => row.map((v, i) => written(columns[i].kind, v)).join("\n").toLowerCase());
    const chosen = columns.findIndex((column) => column.name === choose);
    let order = { column: -1, sign: 1 };
    let page = 0;
    let found = [];

    const filter = make("input", { type: "search", placeholder: "filter", ariaLabel: "filter rows by text" });
    const select = make("select", { ariaLabel: `filter by ${choose}` }, make("option", { value: "", textContent: `every ${choose}` }));
    if (chosen >= 0)
      [...new Set(rows.map((row) => row[chosen]))].forEach((value) => select.append(make("option", { value, textContent: value })));
    const count = make("span", { className: "count" });
    count.setAttribute("role", "status");
    const turn = (textContent, ariaLabel, step) => {
      const button = make("button", { type: "button", textContent, ariaLabel });
      button.addEventListener("click", () => draw((page += step)));
      return button;
    };
    const [back, forth] = [turn("‹", "previous page", -1), turn("›", "next page", 1)];
    const headers = columns.map((column, i) => {
      const button = make("button", { type: "button", textContent: column.name });
      button.addEventListener("click", () => sort(i));
      const header = make("th", { scope: "col", className: column.kind === "text" ? "" : "number" }, button);
      header.setAttribute("aria-sort", "none");
      return header;
    });
    const body = make("tbody");

    const compare = (a, b) => {
      const [x, y] = [rows[a][order.column], rows[b][order.column]];
      if (x === null || y === null) return (x === null) - (y === null) || a - b; // what is missing comes last, always
      const by = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
      return order.sign * by || a - b;
    };
    const refresh = () => {
      const words = filter.value.trim().toLowerCase().split(/\s+/);
      found = rows.map((_, i) => i).filter((i) => (!select.value || rows[i][chosen] === select.value) && words.every((word) => lower[i].includes(word)));
      if (order.column >= 0) found.sort(compare);
      draw((page = 0));
    };
    // Up, down, and back to the order in which the report gives them: the best first.
    const sort = (column) => {
      order = order.column !== column ? { column, sign: 1 } : order.sign === 1 ? { column, sign: -1 } : { column: -1, sign: 1 };
      headers.forEach((header, i) => header.setAttribute("aria-sort", i !== order.column ? "none" : order.sign === 1 ? "ascending" : "descending"));
      refresh();
    };
    const line = (i) =>
      make("tr", {}, ...columns.map((column, j) => make("td", { className: column.kind === "text" ? "" : "number", textContent: written(column.kind, rows[i][j]) })));
    const draw = () => {
      const start = page * PAGE;
      body.replaceChildren(...found.slice(start, start + PAGE).map(line));
      const end = Math.min(start + PAGE, found.length);
      count.textContent = found.length ? `${whole.format(start + 1)} to ${whole.format(end)} of ${whole.format(found.length)}` : "no row";
      back.disabled = page === 0;
      forth.disabled = end >= found.length;
    };

    filter.addEventListener("input", refresh);
    select.addEventListener("change", refresh);
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...headers)), body);
    const scroll = make("div", { className: "scroll", tabIndex: 0 }, table);
    const tools = make("div", { className: "tools" }, filter, ...(chosen >= 0 ? [select] : []), count, back, forth);
    place.prepend(make("div", { className: "live" }, tools, scroll));
    refresh();
  };

  const tables = JSON.parse(document.getElementById("tables").textContent);
  Object.entries(tables).forEach(([key, table]) => show(document.getElementById("table-" + key), table));
})();


"use strict";
// All of the report is readable without this: it sorts the trials, shows tips at once, and opens details for printing.
(() => {
  const tip = document.getElementById("tip");
  let shown = null; // [point, text]

  function show(point, text) {
    shown = [point, text];
    tip.textContent = text;
    tip.hidden = false;
    const at = point.getBoundingClientRect();
    const left = at.left + at.width / 2 - tip.offsetWidth / 2;
    tip.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${at.top > tip.offsetHeight + 12 ? at.top - tip.offsetHeight - 4 : at.bottom + 4}px`;
  }
  const hide = () => { shown = null; tip.hidden = true; };

  for (const title of document.querySelectorAll("svg.area title")) {
    const owner = title.parentElement;
    const text = title.textContent;
    title.remove(); // the browser's own tip would come on top of ours
    owner.addEventListener("pointerenter", () => show(owner, text));
    owner.addEventListener("pointerleave", hide);
    owner.addEventListener("focus", () => show(owner, text));
    owner.addEventListener("blur", hide);
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  addEventListener("scroll", () => { if (shown) show(...shown); }, { passive: true, capture: true });

  const table = document.querySelector("table.trials");
  function value(body, column) {
    const text = body.rows[0].cells[column].dataset.value;
    return text === undefined || text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
  }
  function sort(head, column) {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies].map((body) => [value(body, column), body]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // what is missing stays last
      return (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1);
    });
    table.append(...rows.map(([, body]) => body));
  }
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (head.dataset.sort === undefined) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(head, column));
    head.replaceChildren(button);
  });

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
})();

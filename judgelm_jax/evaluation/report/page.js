"use strict";
(async () => {
  const data = document.getElementById("data");
  if (!data) return;
  const packed = atob(data.textContent);
  const bytes = new Uint8Array(packed.length);
  for (let index = 0; index < packed.length; index++) bytes[index] = packed.charCodeAt(index);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const { filters, rows } = await new Response(stream).json();
  data.remove();

  const $ = (id) => document.getElementById(id);
  const PAGE = 100;
  const active = new Set();
  let shown = [], limit = PAGE, current = -1, field = "", value = "";

  // Text of records is only ever set as text.
  const make = (tag, text, name) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (name) node.className = name;
    return node;
  };
  const verdict = (winner) => (winner === null || winner === undefined ? "none" : winner === 0 ? "tie" : `answer ${winner}`);
  const model = (row, index) => row.models[index] || `answer ${index + 1}`;
  const number = (x) => (x === null || x === undefined ? "–" : Number(x.toFixed(2)).toString());
  const margin = (row) => {
    if (row.probabilities) return Math.max(...row.probabilities);
    if (!row.scores || row.scores.includes(null)) return Infinity;
    const sorted = [...row.scores].sort((a, b) => b - a);
    return 1 + Math.abs(sorted[0] - (sorted[1] ?? 0));
  };
  const length = (row) => row.question.length + row.answers.reduce((sum, answer) => sum + answer.length, 0);
  const haystack = (row) => (row.key ??= [row.id, row.question, ...row.answers, ...row.models.map((m) => m ?? "")].join("\n").toLowerCase());

  function select() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = rows.filter((row) =>
      [...active].every((mark) => row.marks.includes(mark)) &&
      (!field || !value || row.fields[field] === value) &&
      words.every((word) => haystack(row).includes(word)));
    const order = $("sort").value;
    if (order === "close") shown.sort((a, b) => margin(a) - margin(b));
    if (order === "long") shown.sort((a, b) => length(b) - length(a));
    limit = PAGE;
    open(-1);
  }

  function list() {
    $("count").textContent = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} records`;
    $("list").replaceChildren(...shown.slice(0, limit).map((row, index) => {
      const item = make("li");
      if (index === current) item.className = "current";
      const line = make("div", undefined, "line");
      line.append(make("bdi", row.id, "id"), make("span", verdict(row.winner)));
      if (row.label !== null) line.append(make("span", `label: ${verdict(row.label)}`));
      for (const mark of row.marks) line.append(make("span", mark, "mark"));
      const first = make("bdi", row.question.slice(0, 160), "first");
      item.append(line, first);
      item.addEventListener("click", () => open(index));
      return item;
    }));
    $("more").hidden = shown.length <= limit;
  }

  function bar(row) {
    const bar = make("div", undefined, "bar");
    row.probabilities.forEach((p, index) => {
      const last = index === row.probabilities.length - 1;
      const part = make("span", p >= 0.12 ? `${last ? "tie" : index + 1}: ${(100 * p).toFixed(0)} %` : "", last ? "tie" : `p${index % 4}`);
      part.style.width = `${100 * p}%`;
      part.title = `${last ? "tie" : model(row, index)}: ${(100 * p).toFixed(1)} %`;
      bar.append(part);
    });
    return bar;
  }

  function detail(row) {
    const box = $("detail");
    box.hidden = !row;
    document.querySelector(".panes").className = row ? "panes open" : "panes single";
    if (!row) return;
    const close = make("button", "close");
    close.addEventListener("click", () => open(-1));
    const facts = make("p");
    facts.append(make("strong", `Verdict: ${verdict(row.winner)}`), row.label === null ? "" : `; label: ${verdict(row.label)}`);
    for (const mark of row.marks) facts.append(" · ", make("span", mark, "mark"));
    const title = make("h3");
    title.append(make("bdi", row.id));
    box.replaceChildren(close, title, facts);
    if (row.probabilities) box.append(bar(row));
    box.append(make("h3", "Question"), make("div", row.question, "text"));
    if (row.reference !== null) box.append(make("h3", "Reference"), make("div", row.reference, "text"));
    const answers = make("div", undefined, "answers");
    row.answers.forEach((answer, index) => {
      const part = make("div", undefined, row.winner === index + 1 ? "box winner" : "box");
      const head = make("strong");
      head.append(make("bdi", model(row, index)));
      part.append(head);
      if (row.scores && row.scores[index] !== null) part.append(` ${number(row.scores[index])}`);
      if (row.winner === index + 1) part.append(" ", make("span", "wins", "win"));
      part.append(make("div", answer, "text"));
      answers.append(part);
    });
    box.append(make("h3", "Answers"), answers);
    const orders = Object.entries(row.orders);
    if (orders.length) {
      box.append(make("h3", orders.length > 1 ? "Verdict in each order" : "Verdict"));
      const parts = make("div", undefined, "answers");
      for (const [name, order] of orders) {
        const part = make("div", undefined, "box");
        const scores = order.scores ? ` (${order.scores.map(number).join(" : ")})` : "";
        part.append(make("strong", `${name}: ${verdict(order.winner)}${scores}`), make("div", order.text, "text"));
        parts.append(part);
      }
      box.append(parts);
    }
    const fields = Object.entries(row.fields);
    if (fields.length) {
      box.append(make("h3", "Fields"), make("div", fields.map(([k, v]) => `${k}: ${v}`).join("\n"), "text"));
    }
    box.scrollTop = 0;
  }

  function open(index) {
    current = Math.max(-1, Math.min(index, shown.length - 1));
    if (current >= limit) limit = current + PAGE;
    list();
    detail(shown[current]);
    const item = $("list").children[current];
    if (item) item.scrollIntoView({ block: "nearest" });
  }

  for (const mark of filters) {
    const count = rows.filter((row) => row.marks.includes(mark)).length;
    if (!count) continue;
    const button = make("button", `${mark} (${count.toLocaleString("en")})`);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      if (!active.delete(mark)) active.add(mark);
      button.setAttribute("aria-pressed", String(active.has(mark)));
      select();
    });
    $("filters").append(button);
  }
  const names = new Map();
  for (const row of rows) for (const [k, v] of Object.entries(row.fields)) names.set(k, (names.get(k) ?? new Set()).add(v));
  $("field").append(new Option("all fields", ""));
  for (const [name, values] of names) if (values.size > 1 && values.size <= 200) $("field").append(new Option(name, name));
  $("field").hidden = $("field").options.length < 2;
  $("field").addEventListener("change", () => {
    field = $("field").value;
    value = "";
    $("value").hidden = !field;
    $("value").replaceChildren(new Option("any value", ""), ...[...(names.get(field) ?? [])].sort().map((v) => new Option(v, v)));
    select();
  });
  $("value").addEventListener("change", () => { value = $("value").value; select(); });
  let waiting;
  $("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(select, 120); });
  $("sort").addEventListener("change", select);
  $("more").addEventListener("click", () => { limit += PAGE; list(); });
  document.addEventListener("keydown", (event) => {
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
    if (event.key === "Escape") { event.target.blur(); open(-1); return; }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); $("search").focus(); }
    if (event.key === "j") open(current + 1);
    if (event.key === "k") open(Math.max(0, current - 1));
    if (event.key === "Enter" && event.target.tagName !== "BUTTON" && current < 0) open(0);
  });
  $("browser").hidden = false;
  select();
  document.documentElement.dataset.ready = "1";
})();

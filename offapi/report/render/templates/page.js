"use strict";
// Everything from the run is inserted as text, never as markup.
(() => {
  const make = (tag, text, kind) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (kind) node.className = kind;
    return node;
  };

  for (const button of document.querySelectorAll(".copy")) {
    const code = button.parentNode.querySelector("code");
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  const block = document.getElementById("data");
  if (!block) return;
  const { systems, fields, rivals, rows } = JSON.parse(block.textContent);
  const browser = document.getElementById("browser");
  const form = browser.querySelector("form");
  const list = document.getElementById("list");
  const one = document.getElementById("one");
  const count = document.getElementById("count");
  const SHOWN = 200;
  let found = [];
  let at = 0;

  const own = (row) => row.answers[0] || { output: "", values: null, right: null, grade: null };
  const share = (right) => right.filter(Boolean).length / right.length;
  const grade = (answer) => answer.grade ?? (answer.right ? share(answer.right) : 0);
  const differ = (a, b, i) => i < 0 ? a.right.some((ok, j) => ok !== b.right[j]) : a.right[i] !== b.right[i];
  const tests = {
    all: () => true,
    failing: (row, i) => {
      const right = own(row).right;
      if (!right) return grade(own(row)) < 1;
      return i < 0 ? right.includes(false) : !right[i];
    },
    flipped: (row, i) => row.answers.slice(1, 1 + rivals).some((other) => {
      if (!other) return false;
      if (own(row).right && other.right) return differ(own(row), other, i);
      return own(row).grade !== null && other.grade !== null && own(row).grade !== other.grade;
    }),
    broken: (row) => Boolean(own(row).right) && own(row).values === null,
  };
  const length = (row) => (row.document || "").length;
  const orders = {
    file: () => 0,
    grade: (a, b) => grade(own(a)) - grade(own(b)),
    long: (a, b) => length(b) - length(a),
    answer: (a, b) => own(b).output.length - own(a).output.length,
  };
  const haystack = rows.map((row) => [
    row.id, row.document || "", ...row.gold.map((value) => value ?? ""), ...row.answers.map((answer) => answer ? answer.output : ""),
  ].join("\n").toLowerCase());

  const says = (row) => {
    const answer = own(row);
    if (!answer.right) return answer.grade === null ? "" : `grade ${answer.grade.toFixed(2)}`;
    if (answer.values === null) return "✗ not JSON";
    const wrong = fields.filter((_, i) => !answer.right[i]);
    return wrong.length ? `✗ ${wrong.join(", ")}` : "✓";
  };

  const item = (row, i) => {
    const node = make("li");
    node.id = `item-${i}`;
    node.setAttribute("role", "option");
    node.append(make("bdi", row.id, "id"), make("span", says(row), "says"));
    node.addEventListener("click", () => select(i));
    return node;
  };

  // Mark the part of `value` that differs from `wanted`: all between their common start and end.
  const marked = (value, wanted) => {
    const node = make("bdi");
    let start = 0;
    let end = 0;
    const most = Math.min(value.length, wanted.length);
    while (start < most && value[start] === wanted[start]) start++;
    while (end < most - start && value.at(-1 - end) === wanted.at(-1 - end)) end++;
    node.append(value.slice(0, start), make("mark", value.slice(start, value.length - end), "off"), value.slice(value.length - end));
    return node;
  };

  // Mark every occurrence of one of `words` in `text`.
  const lit = (text, words) => {
    const node = make("pre", undefined, "text");
    const spots = [];
    for (const word of words.filter((word) => word && word.length > 1)) {
      for (let i = text.indexOf(word); i >= 0 && spots.length < 200; i = text.indexOf(word, i + word.length)) spots.push([i, i + word.length]);
    }
    let done = 0;
    for (const [from, to] of spots.sort((a, b) => a[0] - b[0])) {
      if (from < done) continue;
      node.append(text.slice(done, from), make("mark", text.slice(from, to)));
      done = to;
    }
    node.append(text.slice(done));
    return node;
  };

  const line = (name, value, sign) => {
    const node = make("dd");
    node.append(make("span", name), value, sign || make("span"));
    return node;
  };

  // Systems with the same answer share a line, except the first and those it is compared with.
  const alike = (row, i) => {
    const groups = new Map();
    row.answers.forEach((answer, j) => {
      if (!answer || !answer.right) return;
      const value = answer.values ? answer.values[i] : null;
      const key = JSON.stringify([j <= rivals ? j : "", answer.values === null, value, answer.right[i]]);
      const names = groups.has(key) ? `${groups.get(key).names}, ${systems[j]}` : systems[j];
      groups.set(key, { names, answer, value });
    });
    return [...groups.values()];
  };

  const verdicts = (row) => {
    const node = make("dl");
    fields.forEach((field, i) => {
      const gold = row.gold[i];
      const part = make("div", undefined, "field");
      part.append(make("dt", field), line("expected", gold == null ? make("bdi", "nothing", "absent") : make("bdi", gold)));
      alike(row, i).forEach(({ names, answer, value }) => {
        const right = answer.right[i];
        const shown = value == null ? make("bdi", answer.values ? "nothing" : "not JSON", "absent") : right || gold == null ? make("bdi", value) : marked(value, gold);
        const sign = make("span", right ? "✓" : "✗", right ? "right" : "wrong");
        sign.setAttribute("aria-label", right ? "right" : "wrong");
        part.append(line(names, shown, sign));
      });
      node.append(part);
    });
    return node;
  };

  const raw = (row) => {
    const node = make("div");
    if (row.expected) node.append(make("h4", "expected"), make("pre", row.expected, "text"));
    row.answers.forEach((answer, j) => {
      if (!answer) return;
      const graded = answer.grade === null ? "" : `, grade ${answer.grade.toFixed(2)}`;
      node.append(make("h4", systems[j] + graded), make("pre", answer.output || "(empty)", "text"));
    });
    return node;
  };

  const show = () => {
    one.replaceChildren();
    const row = found[at];
    if (!row) return;
    const columns = make("div", undefined, "columns");
    if (row.document !== null) {
      const left = make("div");
      left.append(make("h4", `Document, ${row.document.length.toLocaleString("en")} characters`), lit(row.document, row.expected === undefined ? row.gold : []));
      columns.append(left);
    }
    const right = make("div");
    const scored = row.answers.some((answer) => answer && answer.right);
    right.append(make("h4", scored ? "Answers by field" : "Answers"));
    if (scored) {
      const more = make("details", undefined, "raw");
      more.append(make("summary", "Raw answers"), raw(row));
      more.open = row.expected !== undefined; // a text is read, not compared field by field
      right.append(verdicts(row), more);
    } else right.append(raw(row));
    columns.append(right);
    const title = make("h3");
    title.append(make("bdi", row.id));
    one.append(title, columns);
  };

  const select = (i) => {
    at = Math.max(0, Math.min(i, found.length - 1));
    for (const node of list.children) node.setAttribute("aria-selected", String(node.id === `item-${at}`));
    const node = list.children[at];
    list.setAttribute("aria-activedescendant", node ? node.id : "");
    if (node) {
      const top = node.offsetTop - list.offsetTop;
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + node.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top + node.offsetHeight - list.clientHeight;
    }
    show();
  };

  const refresh = () => {
    const { show: which, field, order, find } = Object.fromEntries(new FormData(form));
    const words = find.toLowerCase().split(/\s+/).filter(Boolean);
    const i = field === "" ? -1 : Number(field);
    found = rows.filter((row, j) => tests[which](row, i) && words.every((word) => haystack[j].includes(word))).sort(orders[order]);
    const some = found.slice(0, SHOWN);
    list.replaceChildren(...some.map(item));
    const cut = found.length > SHOWN ? `, the first ${SHOWN} listed: search to narrow` : "";
    count.textContent = `${found.length} of ${rows.length} documents${cut}`;
    found = some;
    for (const input of form.elements.show) {
      const n = rows.filter((row) => tests[input.value](row, i)).length;
      input.nextElementSibling.querySelector("b").textContent = n;
    }
    select(0);
  };

  const choose = (name) => {
    form.elements.show.value = name;
    refresh();
  };

  fields.forEach((field, i) => {
    const option = make("option", field);
    option.value = i;
    form.elements.field.append(option);
  });
  if (!fields.length) form.elements.field.closest("label").hidden = true;
  if (rows.every((row) => row.document === null)) form.elements.order.querySelector("[value=long]").remove();
  form.elements.show[2].closest("label").hidden = systems.length < 2;
  form.elements.show[3].closest("label").hidden = !fields.length;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", refresh);
  const keys = {
    j: () => select(at + 1), k: () => select(at - 1), f: () => choose("failing"), a: () => choose("all"),
    "/": () => form.elements.find.focus(),
  };
  const inList = {
    ArrowDown: keys.j, ArrowUp: keys.k, Home: () => select(0), End: () => select(found.length - 1),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input[type=search], select")) {
      if (event.key === "Escape" || event.key === "Enter") list.focus();
      return;
    }
    const act = keys[event.key] || (event.target === list && inList[event.key]);
    if (!act) return;
    event.preventDefault();
    act();
  });
  browser.hidden = false;
  refresh();
})();

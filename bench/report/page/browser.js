/** Shows one case of one model; the fragment #case=…&model=… says which, so that a view can be linked to. */
function browseCases(section) {
  const find = (selector) => section.querySelector(selector);
  const content = JSON.parse(find("script").textContent);
  const [model, filter] = [find("select"), find("input")];
  const [body, status] = [find("tbody"), find("output")];
  const [previous, next] = [find("[name=previous]"), find("[name=next]")];
  const [picture, message, caption] = [find("img"), find(".ground p"), find("figcaption")];
  let order = null;
  let chosen = content.cases[0]?.id;
  let listed = [];

  const fragment = (id) => `#${new URLSearchParams({ case: id, model: model.value })}`;

  const scores = (entry) => {
    const values = Object.hasOwn(entry.scores, model.value) ? entry.scores[model.value] : [];
    return content.digits.map((_, index) => (values[index] == null ? undefined : Number(values[index])));
  };

  const printed = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : value < 0 ? "−∞" : "∞");

  function makeRow(entry) {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    const link = document.createElement("a");
    head.scope = "row";
    link.href = fragment(entry.id);
    link.textContent = entry.id;
    head.append(link);
    row.append(head);
    row.dataset.case = entry.id;
    for (const [index, value] of scores(entry).entries()) {
      const cell = row.insertCell();
      cell.className = index % content.regions ? "number" : "number rule";
      cell.textContent = value === undefined ? "–" : printed(value, content.digits[index]);
    }
    return row;
  }

  function list() {
    const words = filter.value.toLowerCase().split(/\s+/);
    const kept = content.cases.filter((entry) => words.every((word) => entry.id.toLowerCase().includes(word)));
    const key = (entry, column) => (column === 0 ? entry.id : scores(entry)[column - 1]);
    listed = sorted(kept, order, key).map((entry) => entry.id);
    const entries = new Map(kept.map((entry) => [entry.id, entry]));
    body.replaceChildren(...listed.map((id) => makeRow(entries.get(id))));
    status.textContent = `${listed.length} of ${content.cases.length} cases`;
    show();
  }

  function show() {
    for (const row of body.rows) {
      if (row.dataset.case === chosen) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
    const position = listed.indexOf(chosen);
    previous.disabled = position <= 0;
    next.disabled = position === listed.length - 1;
    const pictures = content.cases.find((entry) => entry.id === chosen)?.pictures ?? {};
    const there = Object.hasOwn(pictures, model.value);
    picture.hidden = !there;
    message.hidden = there;
    if (there) picture.src = pictures[model.value];
    picture.alt = `Case ${chosen}, ${model.value}`;
    message.textContent = "No picture was kept of this case and model.";
    caption.textContent = chosen === undefined ? "" : `${chosen}, ${model.value}`;
  }

  /** The address follows what is shown, without a step of the reader's history for each case. */
  function choose(id) {
    chosen = id;
    location.replace(fragment(id));
    show();
  }

  function move(step) {
    const position = listed.indexOf(chosen);
    const id = listed[position < 0 && step < 0 ? listed.length - 1 : position + step];
    if (id === undefined) return;
    const within = body.contains(document.activeElement);
    choose(id);
    const row = body.querySelector("[aria-current]");
    row.scrollIntoView({ block: "nearest", inline: "nearest" });
    if (within) row.querySelector("a").focus({ preventScroll: true });
  }

  function follow() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    if (!wanted.has("case")) return;
    const known = content.cases.some((entry) => entry.id === wanted.get("case"));
    if (known) chosen = wanted.get("case");
    if (content.models.includes(wanted.get("model")) && model.value !== wanted.get("model")) {
      model.value = wanted.get("model");
      list();
    } else show();
  }

  sortable(find("table"), (wanted) => {
    order = wanted;
    list();
  });
  filter.addEventListener("input", list);
  model.addEventListener("change", () => {
    list();
    if (chosen !== undefined) choose(chosen);
  });
  previous.addEventListener("click", () => move(-1));
  next.addEventListener("click", () => move(1));
  find("[name=enlarge]").addEventListener("click", ({ target }) => {
    const large = find(".browser").classList.toggle("large");
    target.setAttribute("aria-pressed", String(large));
  });
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !event.target.closest("a")) choose(row.dataset.case);
  });
  section.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.target === model) return;
    event.preventDefault();
    move(step);
  });
  window.addEventListener("hashchange", follow);

  find(".browser").hidden = false;
  list();
  follow();
  if (location.hash.startsWith("#case=")) {
    section.scrollIntoView();
    body.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }
}

const cases = document.getElementById("cases_data");
if (cases) browseCases(cases.parentElement);

// Which classes are shown: check boxes in a list that can be searched.

const SEARCHED_FROM = 12; // classes: fewer are seen at a glance

export class ClassFilter {
  #boxes = [];

  /** @param {HTMLElement} root with elements of the classes below; hidden until `use` */
  constructor(root, onChange) {
    const part = (name) => root.querySelector(`.classes-${name}`);
    Object.assign(this, { root, list: part("list"), count: part("count"), search: part("search") });
    this.list.addEventListener("change", () => this.#changed(onChange));
    this.search.addEventListener("input", () => this.#find());
    for (const [name, checked] of [["all", true], ["none", false]]) {
      part(name).addEventListener("click", () => {
        for (const box of this.#found()) box.checked = checked;
        this.#changed(onChange);
      });
    }
  }

  /** The classes of another model, all of them shown. */
  use(names) {
    this.list.replaceChildren(...names.map(rowOf));
    this.#boxes = [...this.list.querySelectorAll("input")];
    this.search.value = "";
    this.search.hidden = names.length < SEARCHED_FROM;
    this.root.hidden = false;
    this.#changed(() => {});
  }

  /** @param {number} classIndex */
  shows(classIndex) {
    return this.#boxes[classIndex]?.checked ?? true;
  }

  #found = () => this.#boxes.filter((box) => !box.parentElement.hidden);

  #find() {
    const wanted = this.search.value.trim().toLowerCase();
    for (const { parentElement: row } of this.#boxes) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    }
  }

  #changed(onChange) {
    const shown = this.#boxes.filter((box) => box.checked).length;
    this.count.textContent = shown === this.#boxes.length ? "all" : `${shown} of ${this.#boxes.length}`;
    onChange();
  }
}

function rowOf(name) {
  const row = document.createElement("label");
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
  row.append(box, name);
  return row;
}

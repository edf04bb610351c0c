// Controls and drawing; explorer_maps.js comes before it.

const pick = (name) => document.querySelector(`header [name=${name}]`);
const main = document.querySelector('main');
const percent = (value) => `${(100 * value).toFixed(2)}%`;

// ---- A panel: one model's view of one photograph ---------------------------------------------

class Panel {
  constructor(number) {
    this.element = document.querySelector('template').content.firstElementChild.cloneNode(true);
    this.element.setAttribute('aria-label', `view ${number + 1}`);
    const last = data.models.length - 1;
    this.model = data.models[Math.min(number, last)];
    this.image = this.model.images[last ? 0 : Math.min(number, this.model.images.length - 1)];
    // A token is {prefix: which of those before the patches} or {x, y}, the centre of a patch from 0
    // to 1, so that models of different grids can share it.
    Object.assign(this, {map: 0, layer: 0, head: -1, token: {prefix: 0}, classToken: 0, held: false, read: null});
    for (const name of ['model', 'map', 'layer']) {
      this[`${name}Input`] = this.find(`[name=${name}]`);
    }
    this.picture = this.find('.picture');
    this.listen();
    this.layer = this.model.images[0].maps[0].layers - 1;
  }

  find(selector) { return this.element.querySelector(selector); }

  listen() {
    this.modelInput.onchange = () => {
      const at = this.model.images.indexOf(this.image);
      this.model = data.models[this.modelInput.value];
      this.image = this.model.images[at];
      this.show();
    };
    this.mapInput.onchange = () => this.change({title: this.mapInput.selectedOptions[0].textContent});
    this.layerInput.oninput = () => this.change({layer: this.layerInput.value - 1});
    this.find('.numbers').ontoggle = () => this.render();
    this.picture.onpointermove = (event) => {
      if (event.pointerType === 'touch') return;
      const place = this.placeOf(event);
      this.change(this.current.byPatch && !this.held ? {token: place, read: null} : {read: place});
    };
    this.picture.onpointerleave = () => this.change({read: null});
    this.picture.onclick = (event) => {
      const place = this.placeOf(event);
      if (!this.current.byPatch) this.change({read: place});
      else if (event.pointerType === 'touch') this.change({token: place, held: false, read: null});
      else this.change({token: place, held: !(this.held && this.patch(place) === this.patch()), read: null});
    };
    this.picture.onkeydown = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const change = this.keys(event.key);
      if (!change) return;
      event.preventDefault();
      this.change(change);
    };
  }

  keys(key) {
    const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[key];
    if (step) {
      const name = this.current.byPatch ? 'token' : 'read', [rows, columns] = this.model.grid;
      const from = this.patch(this[name] ?? {});
      if (from < 0) return {[name]: this.place(Math.floor(rows / 2), Math.floor(columns / 2))};
      const row = Math.min(Math.max(Math.floor(from / columns) + step[0], 0), rows - 1);
      return {[name]: this.place(row, Math.min(Math.max(from % columns + step[1], 0), columns - 1))};
    }
    const {current} = this, count = current.queries.length;
    switch (key) {
      case 'c': return count && this.select(this.query() + 1 < count ? this.query() + 1 : 0);
      case 'w': return {layer: Math.min(this.layer + 1, current.layers - 1)};
      case 's': return {layer: Math.max(this.layer - 1, 0)};
      case 'a': return {head: Math.max(this.head - 1, -1)};
      case 'd': return {head: Math.min(this.head + 1, current.heads - 1)};
      case 'm': return {title: this.image.maps[(this.map + 1) % this.image.maps.length].title};
      case 'Enter': return {held: !this.held, read: null};
    }
    return null;
  }

  // Changes this panel, and the other one where they are linked; each as far as it can follow.
  change(what) {
    for (const panel of pick('linked').checked ? panels : [this]) {
      const {title, ...state} = what;
      Object.assign(panel, state);
      const found = panel.image.maps.findIndex((map) => map.title === title);
      if (found >= 0) panel.map = found;
      panel.render();
    }
  }

  get current() { return this.image.maps[this.map]; }

  select(query) {
    return this.current.byPatch ? {token: {prefix: query}, held: true, read: null} : {classToken: query};
  }

  place(row, column) { return {x: (column + 0.5) / this.model.grid[1], y: (row + 0.5) / this.model.grid[0]}; }

  placeOf(event) {
    const [rows, columns] = this.model.grid, box = this.picture.getBoundingClientRect();
    const inside = (value, count) => Math.min(Math.max(Math.floor(value * count), 0), count - 1);
    const scale = Math.min(box.width / columns, box.height / rows); // as object-fit: contain does it
    const left = box.left + (box.width - columns * scale) / 2, top = box.top + (box.height - rows * scale) / 2;
    return this.place(inside((event.clientY - top) / scale / rows, rows),
      inside((event.clientX - left) / scale / columns, columns));
  }

  // Index of a token's patch, row by row; -1 for other tokens.
  patch(token = this.token) {
    const [rows, columns] = this.model.grid;
    return token.x === undefined ? -1 : Math.floor(token.y * rows) * columns + Math.floor(token.x * columns);
  }

  // Row of the weights.
  query() {
    const {current} = this, count = current.queries.length;
    if (!current.byPatch) return Math.min(this.classToken, count - 1);
    const patch = this.patch();
    if (patch >= 0) return count + patch;
    return count ? Math.min(this.token.prefix, count - 1) : this.patch(this.place(...this.model.grid.map((n) => Math.floor(n / 2))));
  }

  name(index, first) {
    if (index < first.length) return first[index];
    const patch = index - first.length, columns = this.model.grid[1];
    return `row ${Math.floor(patch / columns) + 1}, column ${patch % columns + 1}`;
  }

  values(layer = this.layer, head = this.head) {
    const {current} = this;
    if (!current.norms) return weights(current, layer, head, this.query());
    return this.image.norms.subarray(layer * current.columns, (layer + 1) * current.columns);
  }

  // First and last value of the color scale, over the patches.
  range() {
    const {current} = this, scale = pick('scale').value, first = current.keys.length;
    const layers = scale === 'depth' ? [...Array(current.layers).keys()] : [this.layer];
    const heads = current.norms ? [0] : scale === 'map' ? [this.head] : [...Array(current.heads).keys()];
    const all = layers.flatMap((l) => heads.map((h) => this.values(l, h).subarray(first)));
    const most = Math.max(...all.map((values) => Math.max(...values)));
    const least = Math.min(...all.map((values) => Math.min(...values)));
    if (current.norms) return [least, most];
    if (current.signed) return [-Math.max(most, -least), Math.max(most, -least)];
    return [0, Math.max(most, 4 / current.columns)]; // so that uniform attention is dark, not bright
  }

  // ---- Drawing ---------------------------------------------------------------------------------

  // After another model or photograph.
  async show() {
    const {model, image} = this;
    try {
      await ready(model, image);
    } catch (error) {
      this.find('.status').textContent = `this browser cannot unpack the page: ${error.message}`;
      throw error;
    }
    if (image !== this.image) return; // another one was picked meanwhile
    const options = (input, names, at) => {
      input.replaceChildren(...names.map((name, i) => make('option', name, {value: i})));
      input.value = at;
      input.closest('label').hidden = names.length < 2;
    };
    options(this.modelInput, data.models.map((m) => m.name), data.models.indexOf(model));
    this.showImages();
    this.map = Math.min(this.map, image.maps.length - 1);
    options(this.mapInput, image.maps.map((map) => map.title), this.map);
    image.grey ??= grey(image.photo);
    const unit = Math.max(1, Math.round(768 / Math.max(...model.grid)));
    [this.picture.height, this.picture.width] = model.grid.map((n) => n * unit);
    this.showAnswers();
    this.render();
  }

  showImages() {
    const {model, image} = this, group = this.find('.images div');
    this.find('.images p').textContent = image.name;
    group.hidden = model.images.length < 2;
    if (group.model !== model) {
      group.model = model;
      group.replaceChildren(...model.images.map((each) => {
        const button = make('button', undefined, {type: 'button', title: each.name, 'aria-label': each.name});
        button.append(make('img', undefined, {src: each.picture, alt: ''}));
        button.onclick = () => { this.image = each; this.show(); };
        return button;
      }));
    }
    [...group.children].forEach((button, i) => button.setAttribute('aria-pressed', model.images[i] === image));
  }

  showAnswers() {
    const {model, image} = this, [answer, lens] = this.element.querySelectorAll('h2');
    const number = (value) => model.answers === 'probability' ? percent(value) : value.toFixed(3);
    const share = (value) => `width: ${100 * Math.min(Math.max(value, 0), 1)}%`;
    const row = ([name, value]) => {
      const cells = [make('td', name), make('td', number(value), {class: 'number'}), make('td')];
      if (model.answers !== 'logit') cells[2].append(make('i', '', {style: share(value)}));
      return model.answers === 'probability' ? cells : cells.slice(1);
    };
    const fill = (table, rows) => {
      table.classList.toggle('plain', model.answers !== 'probability');
      table.replaceChildren(make('tbody'));
      table.firstChild.append(...rows);
    };
    const wrap = (cells, attributes) => { const tr = make('tr', '', attributes); tr.append(...cells); return tr; };
    answer.textContent = {probability: 'prediction', logit: 'logit', cosine: 'the model has features, but no classes'}[model.answers];
    fill(this.find('.answer'), model.answers === 'cosine' ? [] : image.answer.map((best) => wrap(row(best))));
    lens.textContent = {
      probability: 'lens: prediction of each layer, read out as the last',
      logit: 'lens: logit of each layer, read out as the last',
      cosine: "lens: features of each layer, read out as the last, against the model's (cosine)",
    }[model.answers];
    fill(this.find('.lens'), image.lens.map((best, i) => {
      const tr = wrap([make('th', `layer ${i + 1}`, {scope: 'row'}), ...row(best[0])]);
      if (best.length > 1) {
        const others = best.slice(1).map(([name, value]) => `${name} ${number(value)}`);
        tr.append(make('td', `then ${others.join(', ')}`, {class: 'others'}));
      }
      tr.onclick = () => { if (this.current.trunk) this.change({layer: i}); };
      return tr;
    }));
  }

  render() {
    if (!this.image.done || this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  draw() {
    const {current} = this, first = current.keys.length;
    this.layer = Math.min(this.layer, current.layers - 1);
    this.head = Math.min(this.head, current.heads - 1);
    const values = this.values(), range = this.range();
    this.mapInput.value = this.map;
    this.layerInput.max = current.layers;
    this.layerInput.value = this.layer + 1;
    this.find('.depth span').textContent = current.trunk ? 'layer' : 'class layer';
    this.find('.depth output').textContent = `${this.layer + 1} of ${current.layers}`;
    this.drawPicture(values.subarray(first), range);
    this.drawBar(range);
    this.drawHeads(range);
    this.drawTokens();
    this.find('.status').textContent = this.status(values);
    this.drawNumbers(values.subarray(first));
    this.element.querySelectorAll('.lens tr').forEach((tr, i) => {
      if (current.trunk && i === this.layer) tr.setAttribute('aria-current', 'true');
      else tr.removeAttribute('aria-current');
    });
  }

  drawPicture(values, range) {
    const {current, picture, image} = this, context = picture.getContext('2d');
    const strength = pick('strength').value / 100, [rows, columns] = this.model.grid;
    context.imageSmoothingEnabled = image.photo.naturalWidth > 64; // pixels of small images are square
    context.drawImage(strength ? image.grey : image.photo, 0, 0, picture.width, picture.height);
    const small = make('canvas');
    // Where the weights are small, the photograph shows.
    const zero = current.signed ? 0.5 : 0, even = current.norms ? 1 : 0;
    paint(small, values, columns, range, colours(current),
      (level) => strength ** (0.5 + 2.5 * (1 - even) * (1 - Math.abs(level - zero) / (1 - zero))));
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, picture.width, picture.height);
    const unit = picture.height / rows;
    const outline = (patch, colour, dash) => {
      const box = [(patch % columns) * unit, Math.floor(patch / columns) * unit, unit, unit];
      for (const [width, ink, gaps] of [[7, '#000', []], [4, colour, dash]]) {
        context.lineWidth = width;
        context.strokeStyle = ink;
        context.setLineDash(gaps);
        context.strokeRect(...box);
      }
    };
    const from = this.query() - current.queries.length;
    if (current.byPatch && from >= 0) outline(from, this.held ? '#fff' : '#7fd4ff', []);
    if (this.read) outline(this.patch(this.read), '#7fff9f', [6, 4]);
  }

  drawBar([low, high]) {
    const steps = Float64Array.from({length: 256}, (_, i) => i);
    paint(this.find('.bar canvas'), steps, 256, [0, 255], colours(this.current));
    this.find('.low').textContent = this.number(low);
    this.find('.high').textContent = this.number(high);
    const {columns, norms, signed} = this.current;
    this.find('.even').textContent = norms || signed ? '' : `(even: ${this.number(1 / columns)})`;
  }

  drawHeads(range) {
    const {current} = this, group = this.find('.heads');
    group.hidden = !current.heads;
    if (group.children.length !== current.heads + 1) {
      group.replaceChildren(...Array.from({length: current.heads + 1}, (_, i) => {
        const button = make('button', undefined, {type: 'button', 'aria-label': i ? `head ${i}` : 'mean of the heads'});
        button.append(make('canvas'), make('span', i || 'mean'));
        button.onclick = () => this.change({head: i - 1});
        return button;
      }));
    }
    for (const [i, button] of [...group.children].entries()) {
      if (!current.heads) break;
      button.setAttribute('aria-pressed', i - 1 === this.head);
      const values = this.values(this.layer, i - 1).subarray(current.keys.length);
      const own = pick('scale').value === 'map' && !current.signed ? [0, Math.max(...values, 4 / current.columns)] : range;
      paint(button.firstChild, values, this.model.grid[1], own, colours(current));
    }
  }

  drawTokens() {
    const {current} = this, group = this.find('.tokens'), names = current.queries;
    group.hidden = names.length < (current.byPatch ? 1 : 2);
    if ([...group.children].map((button) => button.textContent).join('\n') !== names.join('\n')) {
      group.replaceChildren(...names.map((name, i) => {
        const button = make('button', name, {type: 'button'});
        button.onclick = () => this.change(this.select(i));
        return button;
      }));
    }
    [...group.children].forEach((button, i) => button.setAttribute('aria-pressed', i === this.query()));
  }

  number(value) {
    if (this.current.norms) return value.toPrecision(4);
    return this.current.signed ? value.toFixed(4) : percent(value);
  }

  status(values) {
    const {current} = this, first = current.keys.length, read = this.read && first + this.patch(this.read);
    const say = (key) => `${this.name(key, current.keys)}: ${this.number(values[key])}`;
    if (current.norms) {
      const rest = current.keys.map((_, i) => say(i));
      return `Norms after layer ${this.layer + 1}. ${[...(read === null ? [] : [say(read)]), ...rest].join('; ')}`;
    }
    const query = this.query(), from = this.name(query, current.queries);
    if (read !== null) return `${from} to ${say(read)}`;
    let best = first;
    for (let key = first; key < values.length; key++) if (values[key] > values[best]) best = key;
    const parts = [say(best), ...current.keys.map((_, i) => say(i))];
    const own = first + query - current.queries.length;
    if (current.byPatch && own >= first && own !== best) parts.push(`itself: ${this.number(values[own])}`);
    return `${from} attends most to ${parts.join('; ')}`;
  }

  drawNumbers(values) {
    const details = this.find('.numbers'), columns = this.model.grid[1];
    if (!details.open) return;
    const rows = Array.from({length: values.length / columns + 1}, (_, r) => {
      const tr = make('tr');
      tr.append(make('th', r || '', {scope: 'row'}));
      for (let c = 0; c < columns; c++) {
        tr.append(r ? make('td', this.number(values[(r - 1) * columns + c])) : make('th', c + 1, {scope: 'col'}));
      }
      return tr;
    });
    const table = make('table');
    table.append(...rows);
    details.lastElementChild.replaceChildren(table);
  }
}

// ---- The page --------------------------------------------------------------------------------

const panels = [];
const several = data.models.length > 1 || data.models[0].images.length > 1;

function arrange() {
  const count = pick('two').checked ? 2 : 1;
  while (panels.length < count) {
    const panel = new Panel(panels.length);
    const {map, layer, head, token, held} = panels[0] ?? panel;
    if (pick('linked').checked) Object.assign(panel, {map, layer, head, token, held});
    panels.push(panel);
    panel.show();
  }
  panels.length = count;
  main.classList.toggle('two', count > 1);
  main.replaceChildren(...panels.map((panel) => panel.element));
  document.getElementById('linked').hidden = count < 2;
}

for (const name of ['scale', 'strength']) pick(name).oninput = () => panels.forEach((panel) => panel.render());
pick('two').onchange = arrange;
pick('two').checked = several && innerWidth >= 900;
document.getElementById('two').hidden = !several;
pick('theme').onclick = () => {
  const root = document.documentElement.style;
  const dark = root.colorScheme ? root.colorScheme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  root.colorScheme = dark ? 'light' : 'dark';
};
const all = data.models.flatMap((model) => model.images.flatMap((image) => image.maps));
const error = Math.max(...all.map((map) => map.error)), sums = Math.max(...all.map((map) => map.sums ?? 0));
document.getElementById('stored').textContent = 'Attention weights are stored in 8 bits each, scaled by row: '
  + `at most ${error.toPrecision(2)} off the captured ones, rows' sums ${sums.toPrecision(2)} (measured over all of this page).`;
arrange();

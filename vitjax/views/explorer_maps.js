'use strict';
// Attention weights as vitjax/views/explorer.py packs them, read and coloured. Names among them may be
// anything: they reach the page as text alone, never as markup.

const data = JSON.parse(document.getElementById('data').textContent);

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// ---- Data: unpacked when first shown ---------------------------------------------------------

async function unpack(text) {
  const packed = atob(text), bytes = new Uint8Array(packed.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Response(stream).arrayBuffer();
}

async function unpackAll(model, image) {
  image.norms = new Float32Array(await unpack(image.norms));
  image.photo = new Image();
  image.photo.src = image.picture;
  await image.photo.decode();
  const patches = model.grid[0] * model.grid[1];
  for (const map of image.maps) {
    const codes = await unpack(map.codes), most = map.signed ? 127 : 255;
    map.codes = map.signed ? new Int8Array(codes) : new Uint8Array(codes);
    map.tops = new Uint16Array(await unpack(map.tops));
    map.rows = map.tops.length / map.layers / map.heads;
    map.byPatch = map.rows > map.queries.length; // else class tokens alone attend
    map.columns = map.keys.length + patches;
    map.first = map.signed ? 128 : 0; // of the level that stands for 0
    map.levels = Float64Array.from({length: map.first + most + 1}, (_, i) =>
      Math.sign(i - map.first) * (Math.abs(i - map.first) / most) ** (1 / data.power));
  }
  image.maps.push({title: 'token norms', trunk: true, norms: true, layers: model.layers, heads: 0,
    queries: [], keys: model.tokens, columns: model.tokens.length + patches});
}

function ready(model, image) {
  image.ready ??= unpackAll(model, image).then(() => { image.done = true; });
  return image.ready;
}

// One query's weights over all keys in a layer; of head -1 the mean over heads.
function weights(map, layer, head, query) {
  const out = new Float64Array(map.columns), heads = head < 0 ? map.heads : 1;
  for (let h = Math.max(head, 0); h < Math.max(head, 0) + heads; h++) {
    const row = (layer * map.heads + h) * map.rows + query;
    const top = map.tops[row] * map.unit / heads;
    for (let k = 0; k < out.length; k++) out[k] += top * map.levels[map.first + map.codes[row * out.length + k]];
  }
  return out;
}

// ---- Colours ---------------------------------------------------------------------------------

const INFERNO = ['#000004', '#1b0c41', '#4a0c6b', '#781c6d', '#a52c60', '#cf4446', '#ed6925', '#fb9b06', '#f7d13d', '#fcffa4'];
const COOLWARM = ['#3b4cc0', '#8db0fe', '#dddcdc', '#f4987a', '#b40426'];
const VIRIDIS = ['#440154', '#482878', '#3e4989', '#31688e', '#26828e', '#1f9e89', '#35b779', '#6ece58', '#b5de2b', '#fde725'];

function table(stops) {
  const colours = stops.map((stop) => [1, 3, 5].map((i) => parseInt(stop.slice(i, i + 2), 16)));
  return Array.from({length: 256}, (_, i) => {
    const place = i / 255 * (stops.length - 1), left = Math.min(Math.floor(place), stops.length - 2);
    return colours[left].map((c, j) => c + (place - left) * (colours[left + 1][j] - c));
  });
}
const TABLES = {inferno: table(INFERNO), coolwarm: table(COOLWARM), viridis: table(VIRIDIS)};
const colours = (map) => TABLES[map.norms ? 'viridis' : map.signed ? 'coolwarm' : 'inferno'];

// Paints values, one a pixel; the last argument maps a level, 0 to 1, to its opacity.
function paint(canvas, values, columns, [low, high], colours, opacity = () => 1) {
  canvas.width = columns;
  canvas.height = values.length / columns;
  const context = canvas.getContext('2d'), pixels = context.createImageData(columns, canvas.height);
  values.forEach((value, i) => {
    const level = Math.min(Math.max((value - low) / (high - low || 1), 0), 1);
    pixels.data.set([...colours[Math.round(255 * level)], 255 * opacity(level)], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
}

// The photograph without its colours, so that those of the map stand for weights alone.
function grey(photo) {
  const canvas = make('canvas'), {naturalWidth: w, naturalHeight: h} = photo;
  canvas.width = w;
  canvas.height = h;
  const context = canvas.getContext('2d');
  context.drawImage(photo, 0, 0);
  const pixels = context.getImageData(0, 0, w, h), d = pixels.data;
  for (let i = 0; i < d.length; i += 4) d.fill(0.3 * d[i] + 0.59 * d[i + 1] + 0.11 * d[i + 2], i, i + 3);
  context.putImageData(pixels, 0, 0);
  return canvas;
}

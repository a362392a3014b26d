// The form: its choices are those of the service, and its fields are what POST /animate takes.

const byId = (id) => document.getElementById(id);

export class Form {
  constructor() {
    this.element = byId('form');
    this.fields = this.element.elements;
    this.halves = [new StyleHalf(byId('motion')), new StyleHalf(byId('wrinkle'))];
    this.element.addEventListener('input', () => this.update());
    this.update();
  }

  /** Offer what the service has: its styles, and the sizes and bounds of its contract. */
  fill(styles, { texture, resolution }) {
    const [motion, wrinkle] = this.halves;
    motion.fill(styles.filter((style) => style.motion));
    wrinkle.fill(styles.filter((style) => style.wrinkle));
    const sizes = texture.anyOf.find((choice) => choice.enum).enum;
    const options = sizes.map((size) => new Option(`${size} × ${size}`, size, size === 1024, size === 1024));
    this.fields.texture.replaceChildren(...options, new Option('none', 'none'));
    const { minimum, maximum } = resolution.anyOf.find((choice) => choice.minimum);
    Object.assign(this.fields.resolution, { min: minimum, max: maximum });
    this.update();
  }

  /** The fields to post. A bundle holds the wrinkles, a GLB the motion alone. */
  values(audio) {
    const { engine, template, texture, resolution, fps, intensity, seed } = this.fields;
    const [motion, wrinkle] = this.halves;
    const fields = { audio, engine: engine.value, motion_style: motion.expression, format: 'glb' };
    if (template.value) fields.template = template.value;
    if (engine.value === 'textalker' && texture.value !== 'none') {
      Object.assign(fields, { wrinkle_style: wrinkle.expression, texture: texture.value, format: 'bundle' });
    }
    const numbers = {
      resolution: resolution.value || 'native',
      fps: fps.value,
      intensity: intensity.value,
      seed: seed.value,
    };
    return Object.assign(fields, numbers);
  }

  /** Point at the field that was refused; without one, at none. */
  blame(name) {
    for (const element of this.fields) element.removeAttribute?.('aria-invalid');
    const element = this.fields[name];
    if (!element || element instanceof RadioNodeList) return;
    element.setAttribute('aria-invalid', 'true');
    element.focus();
  }

  update() {
    const wrinkles = this.fields.engine.value === 'textalker';
    byId('wrinkle').disabled = !wrinkles || this.fields.texture.value === 'none';
    this.fields.texture.disabled = !wrinkles;
    byId('intensity-value').textContent = `${Math.round(100 * this.fields.intensity.value)} %`;
    this.halves.forEach((half) => half.update());
  }
}

/** One half of a style: a style, or two of them mixed. */
class StyleHalf {
  constructor(element) {
    const find = (selector) => element.querySelector(selector);
    [this.first, this.second, this.hint] = ['.first', '.second', '.hint'].map(find);
    [this.share, this.slider, this.output] = ['.share', '.share input', '.share output'].map(find);
    this.descriptions = {};
  }

  fill(styles) {
    this.descriptions = Object.fromEntries(styles.map(({ id, description }) => [id, description]));
    const options = () => styles.map(({ id }) => new Option(id, id, id === 'neutral', id === 'neutral'));
    this.first.replaceChildren(...options());
    this.second.replaceChildren(
      new Option('nothing', ''),
      ...options().map((option) => ((option.selected = false), option)),
    );
    this.second.value = '';
  }

  get expression() {
    const share = this.slider.value / 100;
    if (!this.second.value || share === 0) return this.first.value;
    if (share === 1) return this.second.value;
    return `${this.first.value}(${(1 - share).toFixed(2)})+${this.second.value}(${share.toFixed(2)})`;
  }

  update() {
    const { first, second, slider } = this;
    this.share.hidden = !second.value;
    this.output.textContent = `${100 - slider.value} : ${slider.value}`;
    this.hint.textContent = this.descriptions[first.value] ?? '';
    slider.setAttribute('aria-valuetext', `${100 - slider.value} % ${first.value}, ${slider.value} % ${second.value}`);
  }
}

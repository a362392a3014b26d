// The heads that can be animated, and one's own: a file is registered, and the report told.

import { read, register } from './service.js';

const byId = (id) => document.getElementById(id);

export class Heads {
  /** onChange(id) follows a choice; onError(error) and onBusy(text) tell what becomes of a file. */
  constructor({ onChange, onError, onBusy }) {
    [this.choice, this.file, this.hint] = ['template', 'own-head', 'head-hint'].map(byId);
    this.cards = new Map();
    this.tell = { onChange, onError, onBusy };
    this.choice.addEventListener('change', () => this.choose(this.choice.value));
    this.file.addEventListener('change', () => this.file.files.length && this.add(this.file.files[0]));
  }

  async fill() {
    this.cards = new Map((await read('templates')).map((card) => [card.id, card]));
    this.choice.replaceChildren(...[...this.cards.keys()].map((id) => new Option(id, id, id === 'default')));
    this.choice.value = 'default';
  }

  choose(id) {
    this.choice.value = id;
    this.hint.textContent = reportOf(this.cards.get(id));
    this.tell.onChange(id);
  }

  async add(file) {
    this.file.disabled = true;
    this.tell.onBusy(`Registering ${file.name}…`);
    try {
      const card = await register(file, idOf(file.name));
      this.cards.set(card.id, card);
      this.choice.append(new Option(card.id, card.id));
      this.choose(card.id);
      this.tell.onBusy('Ready.');
    } catch (error) {
      this.tell.onBusy('The head was not taken.');
      this.tell.onError(error);
    } finally {
      this.file.value = '';
      this.file.disabled = false;
    }
  }
}

/** A name that the service takes, as near to the file's as can be. */
function idOf(name) {
  const stem = name.replace(/\.\w+$/, '').toLowerCase();
  return stem.replace(/[^a-z0-9_-]+/g, '-').replace(/^[-_]+|[-_]+$/g, '').slice(0, 64) || 'head';
}

function reportOf({ vertices, report }) {
  const count = `${vertices.toLocaleString('en')} vertices`;
  if (!report) return count;
  const fit = `the face lies ${report.registration_error_mm.toFixed(1)} mm off, the lips ${report.lips_error_mm.toFixed(1)} mm`;
  return [`${count}; ${fit}; ${report.up_axis} up.`, ...report.warnings].join(' ');
}

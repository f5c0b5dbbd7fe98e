// The pane as xterm.js shows it. It is told never to read (`disableStdin`), so that what it would answer
// by itself to what a program prints (device attributes, cursor reports, settings) goes nowhere. Keys
// and pastes of a person take another way: input.js.

import "./csp.js";
import { askToOpen } from "./dom.js";
import { bytesOf } from "./stream.js";
import { FitAddon } from "./vendor/addon-fit.mjs";
import { SearchAddon } from "./vendor/addon-search.mjs";
import { Unicode11Addon } from "./vendor/addon-unicode11.mjs";
import { WebLinksAddon } from "./vendor/addon-web-links.mjs";
import { WebglAddon } from "./vendor/addon-webgl.mjs";
import { Terminal } from "./vendor/xterm.mjs";

const LARGEST_PX = 14;
const SMALLEST_PX = 7; // below that the pane scrolls sideways
const SMALLEST_LOW_PX = 9; // no smaller than this only to leave room below
const ROOM_BELOW_PX = 130; // for the box that sends a message
const SCROLLBAR_PX = 14;
const LINE = 1.2; // the height of a row, as a share of the font's size
const HEIGHT = 0.62; // of the window, for a pane that may have the size it wants
const SMALLEST = { columns: 20, rows: 10 };
const LARGEST = { columns: 300, rows: 100 };

const THEME = {
  background: "#14171c", foreground: "#d9dde3", cursor: "#d9dde3", cursorAccent: "#14171c",
  selectionBackground: "#3a4c78",
  black: "#454d5a", red: "#f07178", green: "#9ccc65", yellow: "#ffcb6b",
  blue: "#82aaff", magenta: "#c792ea", cyan: "#6fd3e3", white: "#d9dde3",
  brightBlack: "#7d8796", brightRed: "#ff8b92", brightGreen: "#b9e986", brightYellow: "#ffd98a",
  brightBlue: "#9cbcff", brightMagenta: "#d9a8f5", brightCyan: "#8fe6f2", brightWhite: "#ffffff",
};
const FOUND = {
  matchBackground: "#5a4a1a", matchOverviewRuler: "#ffcb6b",
  activeMatchBackground: "#b07d10", activeMatchColorOverviewRuler: "#ffffff",
};

/** A terminal of the pane's own size, its letters as large as the width allows. */
export class Pane {
  #letter; // its width, as a share of the font's size

  constructor(element, columns, rows) {
    this.element = element;
    this.terminal = new Terminal({
      cols: columns, rows, disableStdin: true, convertEol: false, scrollback: 5000,
      fontFamily: 'ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace',
      fontSize: LARGEST_PX, theme: THEME, allowProposedApi: true, cursorInactiveStyle: "outline",
      linkHandler: { activate: (_, address) => askToOpen(address), allowNonHttpProtocols: false },
    });
    this.fit = new FitAddon();
    this.search = new SearchAddon();
    this.#letter = letterWidth(this.terminal.options.fontFamily);
    this.terminal.loadAddon(this.fit);
    this.terminal.loadAddon(this.search);
    this.terminal.loadAddon(new WebLinksAddon((_, address) => askToOpen(address)));
    this.terminal.loadAddon(new Unicode11Addon());
    this.terminal.unicode.activeVersion = "11";
    this.terminal.open(element);
    this.#draw();
    this.onresize = () => {};
    this.onfound = () => {}; // which of how many, from 0; -1: too many to say
    this.search.onDidChangeResults(({ resultIndex, resultCount }) => this.onfound(resultIndex, resultCount));
    const resized = () => {
      this.#scale();
      this.onresize();
    };
    new ResizeObserver(resized).observe(element);
    addEventListener("resize", resized);
    this.#scale();
  }

  write(data) {
    this.terminal.write(data);
  }

  /** The screen as it is now, in place of whatever was shown. */
  repaint({ columns, rows, data }) {
    this.terminal.reset();
    this.terminal.resize(columns, rows);
    this.terminal.write(bytesOf(data));
    this.#scale();
  }

  restart(text) {
    this.terminal.reset();
    this.terminal.write(`\x1b[2m${text}\x1b[0m\r\n`);
  }

  /** `more`: the text grew by a letter, and what is found may stay found. */
  find(text, { back = false, more = false } = {}) {
    if (text === "") {
      this.terminal.clearSelection();
      return this.search.clearDecorations();
    }
    const options = { decorations: FOUND, incremental: more };
    if (back) this.search.findPrevious(text, options);
    else this.search.findNext(text, options);
  }

  /** The size that would fill the page with letters of ordinary size. */
  wanted() {
    const { options, rows } = this.terminal;
    options.fontSize = LARGEST_PX;
    const columns = this.fit.proposeDimensions()?.cols ?? this.terminal.cols;
    const height = this.element.querySelector(".xterm-screen").getBoundingClientRect().height / rows;
    this.#scale();
    const within = (value, name) => Math.max(SMALLEST[name], Math.min(LARGEST[name], Math.floor(value)));
    return { columns: within(columns, "columns"), rows: within((innerHeight * HEIGHT) / height, "rows") };
  }

  #width() {
    const style = getComputedStyle(this.element);
    return this.element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - SCROLLBAR_PX;
  }

  #draw() {
    try {
      const webgl = new WebglAddon();
      webgl.onContextLoss(() => webgl.dispose()); // the rows drawn as elements take over
      this.terminal.loadAddon(webgl);
      this.renderer = "webgl";
    } catch {
      this.renderer = "dom";
    }
  }

  /** Letters as large as columns and rows leave room for. From the font itself: drawn cells are rounded. */
  #scale() {
    const { options, cols, rows } = this.terminal;
    const top = this.element.getBoundingClientRect().top + scrollY;
    const high = Math.max(SMALLEST_LOW_PX, (innerHeight - top - ROOM_BELOW_PX) / (rows * LINE));
    const ideal = Math.min(this.#width() / (cols * this.#letter), high);
    const size = Math.max(SMALLEST_PX, Math.min(LARGEST_PX, Math.floor(ideal * 4) / 4));
    if (Number.isFinite(size) && size !== options.fontSize) options.fontSize = size;
  }
}

function letterWidth(family) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = `100px ${family}`;
  return context.measureText("W").width / 100;
}

// xterm.js makes <style> elements and style attributes, which our Content-Security-Policy refuses.
// The same rules through the CSSOM are no inline styles: hand it elements that go that way. Only the
// page with a terminal loads this, before xterm.js.

const create = Document.prototype.createElement;

function standInForStyle() {
  const element = create.call(document, "template"); // even an empty <style> is refused
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  let text = "";
  Object.defineProperty(element, "textContent", {
    get: () => text,
    set: (css) => {
      text = css;
      sheet.replaceSync(css);
    },
  });
  const remove = element.remove;
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== sheet);
    remove.call(element);
  };
  return element;
}

function setAttribute(name, value) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

document.createElement = (name, options) => {
  if (name === "style") return standInForStyle();
  const element = create.call(document, name, options);
  if (name === "span") element.setAttribute = setAttribute;
  return element;
};

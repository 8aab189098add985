/**
 * Elements from values. Nothing here knows the page.
 *
 *     h("p", { class: "note" }, "text", h("b", {}, "bold"))
 *     svg("path", { d: "M0 0" })
 *     replace(container, ...nodes)   // the focus stays on the element with the same data-key
 *     say(region, ...nodes)          // of a live region, which is read aloud when it changes
 *     setSlider("epoch", 7, "after epoch 7 of 13")
 */
const NAMESPACE = "http://www.w3.org/2000/svg";

export function h(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(NAMESPACE, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, String(value));
    }
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined),
  );
  return element;
}

export function replace(container, ...nodes) {
  const active = document.activeElement;
  const key = container.contains(active) ? active.getAttribute("data-key") : null;
  container.replaceChildren(...nodes.flat(Infinity).filter(Boolean));
  if (key === null) return;
  const same = container.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (same) same.focus({ preventScroll: true });
}

/** Replaces what a live region says, unless it says it already: it would be read aloud again. */
export function say(region, ...nodes) {
  const said = region.cloneNode(false);
  said.append(...nodes.flat(Infinity).filter(Boolean));
  if (!said.isEqualNode(region)) replace(region, [...said.childNodes]);
}

/** Sets a slider and the text beside it, which screen readers read instead of the number. */
export function setSlider(name, value, text) {
  const slider = byId(name);
  slider.value = value;
  slider.setAttribute("aria-valuetext", text);
  say(byId(`${name}-value`), text);
}

/** Returns the element with an id, which the template promises. */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no element '${id}'`);
  return element;
}

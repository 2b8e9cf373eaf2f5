// Put new HTML into a part of a page. The element that has the focus keeps it.
const shown = new WeakMap();

export function swap(part, html) {
  if (shown.get(part) === html) return;
  shown.set(part, html);
  const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
  part.innerHTML = html;
  if (focused) document.getElementById(focused)?.focus();
}

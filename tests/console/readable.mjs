// What makes a page hard to read or to use. Both run in the page: they know nothing of what is around them here.

/** Controls without a name, and fields without a label. */
export function unnamed() {
  const named = (element) => element.labels?.length > 0 || element.getAttribute('aria-label') || element.getAttribute('aria-labelledby')
    || (element.matches('a, button') && element.innerText.trim());
  return [...document.querySelectorAll('a, button, input, select, textarea')]
    .filter((element) => element.checkVisibility() && !named(element)).map((element) => element.outerHTML);
}

/** Texts that stand out less than 4.5 to 1 from what is behind them. */
export function pale() {
  const parse = (text) => text.match(/[\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const element = text.parentElement;
    if (!text.data.trim() || !element.checkVisibility() || element.closest('.unseen, .skip, :disabled, option')) continue;
    const style = getComputedStyle(element);
    const front = element.closest('svg') ? style.fill : style.color;
    const [one, other] = [light(parse(front)), light(behind(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) found.push(`${text.data.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return found;
}

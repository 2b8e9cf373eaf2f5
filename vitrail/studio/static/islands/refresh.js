// Keep a part of a page fresh: fetch it again every two seconds while the page is seen, and swap it if it is different.
import { swap } from "./swap.js";

const PAUSE = 2000;

for (const part of document.querySelectorAll("[data-refresh]")) {
  setInterval(async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(part.dataset.refresh);
      if (answer.ok) swap(part, await answer.text());
    } catch {
      // The studio is away for a moment; the next turn asks again.
    }
  }, PAUSE);
}

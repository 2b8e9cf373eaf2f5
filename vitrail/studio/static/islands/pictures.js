// Pictures for a model: dropped anywhere on the page, pasted, or chosen. The form itself works without this.
const form = document.querySelector("[data-pictures]");
const input = form?.querySelector("input[type=file]");

function send(files) {
  const pictures = [...files].filter(file => file.type.startsWith("image/") || /\.(dcm|tiff?|heic|npy)$/i.test(file.name));
  if (!pictures.length) return;
  const transfer = new DataTransfer();
  for (const file of pictures) transfer.items.add(file);
  input.files = transfer.files;
  form.requestSubmit();
}

if (form && input) {
  const busy = form.querySelector(".busy");
  form.addEventListener("submit", () => {
    form.classList.add("waiting");
    if (busy) { busy.hidden = false; busy.textContent = form.dataset.busy; }
  });
  input.addEventListener("change", () => { if (input.files.length) form.requestSubmit(); });
  addEventListener("paste", event => {
    const files = event.clipboardData?.files ?? [];
    if (files.length) { event.preventDefault(); send(files); }
  });
  let depth = 0;
  const over = on => form.classList.toggle("over", on);
  addEventListener("dragenter", event => { event.preventDefault(); depth += 1; over(true); });
  addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); over(depth > 0); });
  addEventListener("dragover", event => event.preventDefault());
  addEventListener("drop", event => {
    event.preventDefault();
    depth = 0;
    over(false);
    send(event.dataTransfer.files);
  });
  addEventListener("pageshow", () => { form.classList.remove("waiting"); if (busy) busy.hidden = true; });
}

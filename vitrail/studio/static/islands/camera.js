// A picture from the camera, where the browser allows it: on this computer, or over https.
const button = document.querySelector("[data-camera]");
const form = document.querySelector("[data-pictures]");

async function open() {
  const video = document.createElement("video");
  video.className = "camera";
  video.playsInline = true;
  video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  await video.play();
  const take = document.createElement("button");
  take.type = "button";
  take.textContent = button.dataset.take;
  take.addEventListener("click", () => snap(video));
  button.replaceWith(take);
  form.prepend(video);
}

function snap(video) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob(blob => {
    for (const track of video.srcObject.getTracks()) track.stop();
    video.remove();
    const transfer = new DataTransfer();
    transfer.items.add(new File([blob], `camera-${Date.now()}.jpg`, { type: "image/jpeg" }));
    form.querySelector("input[type=file]").files = transfer.files;
    form.requestSubmit();
  }, "image/jpeg", 0.92);
}

if (button && form && navigator.mediaDevices?.getUserMedia) {
  button.hidden = false;
  button.addEventListener("click", () => open().catch(() => {
    form.querySelector(".busy").hidden = false;
    form.querySelector(".busy").textContent = button.dataset.refused;
  }));
}

// Browsers allow no workers on a page opened from disk. There, search runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.frame.onload = () => {
        const scope = this.frame.contentWindow
        scope.postMessage = (data) => setTimeout(() => this.onmessage?.({ data }))
        this.postMessage = (data) => setTimeout(() => scope.onmessage({ data }))
        this.waiting.forEach((data) => this.postMessage(data))
      }
      this.frame.srcdoc = `<script src="${new URL(url, location.href)}"></script>`
      document.body.append(this.frame)
    }

    postMessage(data) {
      this.waiting.push(data)
    }

    terminate() {
      this.frame.remove()
    }
  }
}

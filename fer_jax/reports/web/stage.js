/** The picture with a box around the face and, where the network's frame is known, five points: mouse, touch, keyboard. */

const LEAST = 8;  // Pixels of the picture that a box has at least; pixels of the screen that make a press a stroke.
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

/** What the user does on a picture. Places are in pixels of the picture; those of points in shares of the square around
 * the box, so that they go with it. */
export class Stage {
  /**
   * @param root The element that holds a canvas, the box with its corners, and a button for each point.
   * @param template Where the points lie in the network's faces, [x, y] in shares of the side; [] where nobody knows.
   * @param changed Called after every change.
   */
  constructor(root, template, changed) {
    Object.assign(this, {root, template, changed, canvas: root.querySelector('canvas')});
    this.frame = root.querySelector('.box');
    this.marks = [...root.querySelectorAll('.point')];
    root.addEventListener('pointerdown', event => this.#press(event));
    root.addEventListener('keydown', event => this.#key(event));
  }

  /** Shows a picture, drawn on a canvas of its size, with a box in its middle. */
  show(picture, width, height) {
    [this.canvas.width, this.canvas.height] = [width, height];
    this.canvas.getContext('2d', {willReadFrequently: true}).drawImage(picture, 0, 0, width, height);
    this.root.style.setProperty('--ratio', width / height);
    const side = Math.min(width, height) * .75;
    this.#place({left: (width - side) / 2, top: (height - side) / 2, right: (width + side) / 2,
                 bottom: (height + side) / 2}, this.template);
  }

  /** Puts the box around the whole picture. */
  whole() {
    this.#place({left: 0, top: 0, right: this.canvas.width, bottom: this.canvas.height}, this.template);
  }

  /** The picture as pixels.js takes it. */
  get image() {
    const {width, height} = this.canvas;
    return {data: this.canvas.getContext('2d').getImageData(0, 0, width, height).data, width, height, channels: 4};
  }

  /** The box {left, top, right, bottom} in whole pixels. */
  get box() {
    return Object.fromEntries(Object.entries(this.edges).map(([name, edge]) => [name, Math.round(edge)]));
  }

  /** The points [x, y] in pixels of the picture. */
  get points() {
    const [x0, y0, side] = this.#square;
    return this.shares.map(([x, y]) => [x0 + x * side, y0 + y * side]);
  }

  /** Whether a point has been moved in the box. */
  get marked() {
    return this.shares !== this.template;
  }

  get #square() {
    const {left, top, right, bottom} = this.edges, side = Math.max(right - left, bottom - top);
    return [(left + right - side) / 2, (top + bottom - side) / 2, side];
  }

  /** Moves the box, with the points in it, or with new ones; it stays on the picture. */
  #place(edges, shares = this.shares) {
    const {width, height} = this.canvas;
    Object.assign(this, {edges, shares});
    const percent = (name, share) => this.root.style.setProperty(name, `${100 * share}%`);
    percent('--left', edges.left / width);
    percent('--top', edges.top / height);
    percent('--width', (edges.right - edges.left) / width);
    percent('--height', (edges.bottom - edges.top) / height);
    this.points.forEach(([x, y], i) => {
      this.marks[i].style.left = `${100 * x / width}%`;
      this.marks[i].style.top = `${100 * y / height}%`;
    });
    this.changed();
  }

  #move(edges, x, y) {
    const {left, top, right, bottom} = edges, {width, height} = this.canvas;
    const dx = Math.min(Math.max(x, -left), width - right), dy = Math.min(Math.max(y, -top), height - bottom);
    this.#place({left: left + dx, top: top + dy, right: right + dx, bottom: bottom + dy});
  }

  /** Spans the box from a fixed corner to another point; as a square if wanted. */
  #span([x0, y0], [x, y], square, shares) {
    const {width, height} = this.canvas;
    const [right, down] = [x >= x0, y >= y0], room = [right ? width - x0 : x0, down ? height - y0 : y0];
    let [wide, high] = [Math.abs(x - x0), Math.abs(y - y0)];
    if (square) wide = high = Math.min(Math.max(wide, high), ...room);
    [wide, high] = [wide, high].map((side, i) => Math.max(Math.min(side, room[i]), Math.min(LEAST, width, height)));
    const left = Math.min(Math.max(right ? x0 : x0 - wide, 0), width - wide);
    const top = Math.min(Math.max(down ? y0 : y0 - high, 0), height - high);
    this.#place({left, top, right: left + wide, bottom: top + high}, shares);
  }

  #mark(i, [x, y]) {
    const [x0, y0, side] = this.#square, {width, height} = this.canvas;
    const share = [(Math.min(Math.max(x, 0), width) - x0) / side, (Math.min(Math.max(y, 0), height) - y0) / side];
    this.#place(this.edges, this.shares.map((old, j) => j === i ? share : old));
  }

  #press(event) {
    if (event.button) return;
    const area = this.canvas.getBoundingClientRect(), scale = this.canvas.width / area.width;
    const at = ({clientX, clientY}) => [(clientX - area.left) * scale, (clientY - area.top) * scale];
    const start = at(event), edges = this.edges, {left, top, right, bottom} = edges;
    const corner = event.target.dataset.corner, point = this.marks.indexOf(event.target);
    let drag;
    if (point >= 0) {
      const [x, y] = this.points[point];
      drag = to => this.#mark(point, [x + to[0] - start[0], y + to[1] - start[1]]);
    } else if (corner) {
      const fixed = [corner.includes('left') ? right : left, corner.includes('top') ? bottom : top];
      const from = [corner.includes('left') ? left : right, corner.includes('top') ? top : bottom];
      drag = (to, event) => this.#span(fixed, from.map((edge, i) => edge + to[i] - start[i]), event.shiftKey);
    } else if (event.target === this.frame) {
      drag = to => this.#move(edges, to[0] - start[0], to[1] - start[1]);
    } else {
      drag = (to, event) => {
        const far = Math.hypot(event.clientX - area.left - start[0] / scale, event.clientY - area.top - start[1] / scale);
        if (far >= LEAST) this.#span(start, to, event.shiftKey, this.template);
      };
    }
    event.preventDefault();  // No text is marked, no picture dragged away; so the focus is set here.
    (point >= 0 ? event.target : this.frame).focus({preventScroll: true});
    this.root.setPointerCapture(event.pointerId);
    const stop = new AbortController(), options = {signal: stop.signal};
    this.root.addEventListener('pointermove', moved => drag(at(moved), moved), options);
    for (const end of ['pointerup', 'pointercancel']) this.root.addEventListener(end, () => stop.abort(), options);
  }

  #key(event) {
    const arrow = ARROWS[event.key], point = this.marks.indexOf(event.target);
    if (!arrow || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();  // The page does not scroll.
    const step = Math.max(Math.round(Math.min(this.canvas.width, this.canvas.height) / 100), 1);
    const [dx, dy] = arrow.map(way => way * step), {left, top, right, bottom} = this.edges;
    if (point >= 0) {
      const [x, y] = this.points[point];
      this.#mark(point, [x + dx, y + dy]);
    } else if (event.shiftKey) {
      this.#span([left, top], [right + dx, bottom + dy], false);
    } else {
      this.#move(this.edges, dx, dy);
    }
  }
}

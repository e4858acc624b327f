/** A process's /metrics, read as numbers. */

export type Labels = Readonly<Record<string, string>>;

interface Sample {
  readonly name: string;
  readonly labels: Labels;
  readonly value: number;
}

export class Figures {
  constructor(private readonly samples: readonly Sample[]) {}

  /** Sum over all series of this name that carry these labels; 0 when there is none. */
  sum(name: string, labels: Labels = {}): number {
    return this.#of(name, labels).reduce((total, sample) => total + sample.value, 0);
  }

  /** By the values of one label, summed over the others. */
  by(name: string, label: string, labels: Labels = {}): Record<string, number> {
    const sums: Record<string, number> = {};
    for (const sample of this.#of(name, labels)) {
      const key = sample.labels[label] ?? '';
      sums[key] = (sums[key] ?? 0) + sample.value;
    }
    return sums;
  }

  #of(name: string, labels: Labels): Sample[] {
    const wanted = Object.entries(labels);
    return this.samples.filter((sample) => sample.name === name && wanted.every(([key, value]) => sample.labels[key] === value));
  }
}

/** `http` is host:port of a service's admin server. Rejects when nobody answers within 5 s. */
export async function readFigures(http: string): Promise<Figures> {
  const response = await fetch(`http://${http}/metrics`, { signal: AbortSignal.timeout(5000) });
  return parseFigures(await response.text());
}

const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** The text format of Prometheus, as far as prom-client writes it. */
export function parseFigures(text: string): Figures {
  const samples: Sample[] = [];
  for (const line of text.split('\n')) {
    const [, name, labelText = '', value] = LINE.exec(line) ?? [];
    if (name === undefined) continue;
    const labels = Object.fromEntries([...labelText.matchAll(LABEL)].map(([, key = '', labelValue = '']) => [key, labelValue]));
    samples.push({ name, labels, value: Number(value) });
  }
  return new Figures(samples);
}

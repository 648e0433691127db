/** Where the commands write, and where they read from. */
export interface Terminal {
  /** Lines. Nothing in them reaches the terminal that it would obey. */
  readonly write: (text: string) => void;
  /** Back up by so many lines, which are erased, with all below them. */
  readonly eraseLines: (count: number) => void;
  /** A line that is no result, for whoever watches. */
  readonly warn: (line: string) => void;
  /** Whether a person watches, so that lines can be written over. */
  readonly isWatched: boolean;
  readonly columns: number;
  readonly readInput: () => string;
}

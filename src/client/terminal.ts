/** Where the commands write, and where they read from. */
export interface Terminal {
  readonly write: (text: string) => void;
  /** A line that is no result, for whoever watches. */
  readonly warn: (line: string) => void;
  /** Whether a person watches, so that lines can be written over. */
  readonly isWatched: boolean;
  readonly columns: number;
  readonly readInput: () => string;
}

/** The sound of a new message: two soft notes, synthesized without an audio file. */

/** The minimum time between two sounds, so that a busy conversation is not a constant noise. */
const PAUSE_MS = 3000

const NOTES_HZ = [659, 880]
const NOTE_S = 0.12
const VOLUME = 0.06

let audio: AudioContext | null = null
let last = Number.NEGATIVE_INFINITY

/**
 * Plays the sound, unless it was played less than `PAUSE_MS` ago or the user has not yet interacted
 * with the page.
 */
export function chime(now: number): void {
  if (now - last < PAUSE_MS || typeof AudioContext === 'undefined' || !navigator.userActivation?.hasBeenActive) return
  last = now
  audio ??= new AudioContext()
  const start = audio.currentTime
  for (const [index, frequency] of NOTES_HZ.entries()) {
    const at = start + index * NOTE_S
    const tone = new OscillatorNode(audio, { frequency })
    const gain = new GainNode(audio, { gain: 0 })
    // The volume rises and falls slowly enough to avoid a click.
    gain.gain.setValueAtTime(0, at)
    gain.gain.linearRampToValueAtTime(VOLUME, at + 0.015)
    gain.gain.exponentialRampToValueAtTime(0.0001, at + NOTE_S * 2)
    tone.connect(gain).connect(audio.destination)
    tone.start(at)
    tone.stop(at + NOTE_S * 2)
  }
}

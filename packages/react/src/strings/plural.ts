type Forms = Partial<Record<Intl.LDMLPluralRule, string>> & { other: string }

/**
 * Returns a function that chooses the plural form for a number. For 0, it uses `zero` even in
 * languages whose plural rules lack that form, so that a text such as "nothing unread" is possible.
 */
export function plural(locale: string): (count: number, forms: Forms) => string {
  const rules = new Intl.PluralRules(locale)
  return (count, forms) => (count === 0 && forms.zero) || forms[rules.select(count)] || forms.other
}

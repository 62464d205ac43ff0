type Forms = Partial<Record<Intl.LDMLPluralRule, string>> & { other: string }

/**
 * Chooses the plural form of a number. `zero` is also used for 0 in languages whose rules do not
 * have that form, so that "nothing unread" can be said differently.
 */
export function plural(locale: string): (count: number, forms: Forms) => string {
  const rules = new Intl.PluralRules(locale)
  return (count, forms) => (count === 0 && forms.zero) || forms[rules.select(count)] || forms.other
}

//! Which parameters a pattern means: one syntax for freezing and for parameter groups.

/// Whether a pattern means the parameter of this dotted name.
///
/// It does if it equals the name or a dotted prefix of it (`features.1` means `features.1.weight`, not
/// `features.10.weight`); `*` stands for any run of characters, dots too, even none.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Only the last star is worth going back to: what came before it already matched as early as it could.
    let mut star = None;
    loop {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if name.get(n) == Some(byte) => {
                p += 1;
                n += 1;
            }
            None if n == name.len() || name[n] == b'.' => return true,
            _ => match &mut star {
                Some((place, taken)) if *taken < name.len() => {
                    *taken += 1;
                    (p, n) = (*place + 1, *taken);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn pattern_is_the_name_or_a_dotted_prefix() {
        for pattern in ["features.1.weight", "features.1", "features"] {
            assert!(matches(pattern, "features.1.weight"), "{pattern}");
        }
        for pattern in ["features.1.weight.x", "feature", "features.", "1.weight", "weight", "", "Features"] {
            assert!(!matches(pattern, "features.1.weight"), "{pattern}");
        }
        assert!(!matches("features.1", "features.10.weight"));
    }

    #[test]
    fn star_is_any_run_of_characters() {
        for pattern in
            ["*", "*.weight", "features.*.weight", "f*s.1", "*1*", "features*", "**", "*t", "features.*", "*.1"]
        {
            assert!(matches(pattern, "features.1.weight"), "{pattern}");
        }
        for pattern in ["*.bias", "features.*.bias", "*.2", "*x*", "features.1.weight*.*", "*.weigh"] {
            assert!(!matches(pattern, "features.1.weight"), "{pattern}");
        }
    }

    #[test]
    fn star_goes_back_until_the_rest_fits() {
        assert!(matches("*.norm", "norm.norms.norm.weight"));
        assert!(matches("a*b*c", "a.b.b.c.c"));
        assert!(matches("*aab", "aaaab"));
        assert!(!matches("*aab", "aaaabb"));
        assert!(matches("größe.*", "größe.ü"));
    }
}

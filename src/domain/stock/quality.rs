//! Checks of values that are not a matter of one field's type.

/// Whether the last digit of a GTIN or GLN is its check digit (GS1 General Specifications §7.9:
/// weights 3 and 1 from the right). GTINs have 8, 12, 13 or 14 digits, GLNs 13.
pub fn gs1_check_digit_holds(code: &str) -> bool {
    if !matches!(code.len(), 8 | 12 | 13 | 14) || !code.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let weighted: u32 = code
        .bytes()
        .rev()
        .enumerate()
        .map(|(index, digit)| u32::from(digit - b'0') * if index % 2 == 1 { 3 } else { 1 })
        .sum();
    weighted.is_multiple_of(10)
}

//! One line on somebody's terminal: where it begins, and that it stays one, whatever is
//! in it. What it says is not known here.

/// Control characters as escapes, so that a file's name stays a name.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A message is one line, whatever an error's text held, and nothing in it moves
/// the cursor: only our own colours keep their escape character.
pub(super) fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim_end);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let mut shown = String::with_capacity(text.len());
    for (number, part) in lines.join("; ").split('\u{1b}').enumerate() {
        if number > 0 {
            shown.push_str(if is_colour(part) { "\u{1b}" } else { "\\u{1b}" });
        }
        shown.push_str(&printable(part));
    }
    shown
}

/// Whether `text` begins as what follows the escape character of a colour does.
fn is_colour(text: &str) -> bool {
    let parameters = text.strip_prefix('[').unwrap_or_default();
    parameters
        .trim_start_matches(|character: char| character.is_ascii_digit() || character == ';')
        .starts_with('m')
}

/// What moves the cursor of a terminal to the beginning of a line that nothing stands on:
/// of the next one if the guest has left its line unfinished. Nobody can ask a terminal
/// where its cursor is without reading what is typed. But a whole line of spaces ends
/// either at the end of this line, or on the next one, where they have pushed the cursor;
/// and from there a carriage return goes to the beginning. What is left of the spaces is
/// erased. (zsh has its prompt on a line of its own by the same means, PROMPT_SP. A
/// terminal that wraps before it has to leaves an empty line.)
pub(super) fn to_the_line_s_beginning(columns: usize) -> Vec<u8> {
    if columns == 0 {
        return Vec::new();
    }
    let mut line = vec![b' '; columns];
    line.extend(b"\r\x1b[K");
    line
}

/// How wide the terminal is that the messages go to; 0 if they go to none, or to one that
/// cannot go back in a line.
pub(super) fn columns_of_stderr() -> usize {
    let is_dumb = std::env::var_os("TERM").is_none_or(|name| name == "dumb" || name.is_empty());
    // It fails for what is no terminal.
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if !is_dumb => size.ws_col.into(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_and_keeps_its_colours_only() {
        assert_eq!(one_line("a\n\n  b \nc\n"), "a;   b; c");
        let text = "\u{1b}[1mbold\u{1b}[0m \u{1b}[2J \u{1b}]0;title\u{7}";
        let expected = "\u{1b}[1mbold\u{1b}[0m \\u{1b}[2J \\u{1b}]0;title\\u{7}";
        assert_eq!(one_line(text), expected);
    }

    #[test]
    fn a_line_of_spaces_is_as_long_as_the_terminal_is_wide() {
        assert_eq!(to_the_line_s_beginning(0), b"");
        assert_eq!(to_the_line_s_beginning(3), b"   \r\x1b[K");
    }
}

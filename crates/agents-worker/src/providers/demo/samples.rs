//! Texts that the demo model has ready: code, formatting, a story long enough to be stopped.

/// A greeting in the language that is asked for, as a Markdown code block.
pub(super) fn code(language: &str, name: &str) -> String {
    // The name stands inside a string literal of three languages.
    let name: String = name.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect();
    let (tag, body) = match language {
        "rust" => ("rust", format!("fn main() {{\n    println!(\"Hello, {name}!\");\n}}")),
        "javascript" | "js" | "typescript" => {
            ("js", format!("const name = \"{name}\";\nconsole.log(`Hello, ${{name}}!`);"))
        }
        "bash" | "shell" => ("sh", format!("#!/bin/sh\necho \"Hello, {name}!\"")),
        _ => (
            "python",
            format!(
                "def greet(name):\n    return f\"Hello, {{name}}!\"\n\n\nprint(greet(\"{name}\"))"
            ),
        ),
    };
    format!("```{tag}\n{body}\n```")
}

/// Every kind of formatting that a message can have.
pub(super) const MARKDOWN: &str = "\
A message can have **bold**, *italic* and `code`, and:

1. numbered items,
2. in order,
   - with others inside.

> Quotes stand apart.

| what | how |
|---|---|
| table | `\\| a \\| b \\|` |
| link | `[text](https://example.org)` |

```text
And blocks keep    their   spaces.
```";

/// A story for `name`, some two hundred words.
pub(super) fn story(name: &str, agent: &str) -> String {
    format!(
        "**The room that remembered**\n\n\
         Once there was a room in which {name} talked with friends. The room had one habit that \
         other rooms had not: whatever was said in it was written down before anybody heard it. \
         \"Why so careful?\" asked {name}. \"Because,\" said the room, \"the lights go out now and \
         then.\"\n\n\
         One evening they did. In the middle of a sentence everything went dark, and for a moment \
         nobody knew who had said what. When the light came back, the book lay open where it had \
         been, and the last line was complete. Only the one sentence that nobody had finished was \
         missing, and so {name} said it again.\n\n\
         In a corner of the room sat {agent}, who was no storyteller at all, but a small clockwork \
         that knew a handful of answers by heart. \"Tell us a story,\" said the friends, and the \
         clockwork told the only one it knew, word by word, a little slower than it had to, so \
         that there was time to stop it half-way.\n\n\
         Nobody did. And if you read this to its end, neither did you."
    )
}

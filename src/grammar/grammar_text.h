#pragma once
// A grammar as text, in either of two dialects, told apart by `::=`:
//   EBNF  root ::= "a" | [b-z]+ other{2,3}   (GBNF; rules, literals, classes, groups, * + ? {m,n}, # comments; begins at root)
//   Lark  start: "a" | /[b-z]+/ other~2..3   (rules and terminals, "x".."y", [optional], %import common.NAME; begins at start)
// What is not done (%ignore, look-ahead, templates, regex flags) is an error that names it. A rule that begins with itself is
// written as a repetition; other left recursion is refused by automaton.h.
#include "base/result.h"
#include "grammar/rules.h"

namespace baton::grammar {

Result<> grammar_text(Rules& rules, std::string_view text);  // sets rules.start

}  // namespace baton::grammar

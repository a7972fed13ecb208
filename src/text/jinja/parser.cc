#include "text/jinja/parser.h"

#include <algorithm>

#include "text/jinja/expr_parser.h"
#include "text/jinja/token_stream.h"

namespace baton::text::jinja {
namespace {

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : s_(std::move(tokens)), exprs_(s_) {}

  Result<Block> run() {
    BATON_TRY(Block block, body({}));
    return block;
  }

 private:
  using Names = std::initializer_list<std::string_view>;

  static bool one_of(std::string_view name, Names names) { return std::ranges::find(names, name) != names.end(); }

  // Statements up to a tag named in `until` (left for the caller) or, if there are none, to the end.
  Result<Block> body(Names until) {
    Nesting level(s_);
    BATON_OK(s_.enter());
    Block out;
    for (;;) {
      switch (s_.peek().kind) {
        case Token::Kind::kEnd:
          if (until.size() == 0) return out;
          return s_.unexpected(cat("{% ", *(until.end() - 1), " %}"));
        case Token::Kind::kText: {
          BATON_TRY(auto text, make(Stmt::Kind::kText));
          text->text = s_.take().text;
          out.push_back(std::move(text));
          break;
        }
        case Token::Kind::kVariableBegin: {
          s_.take();
          BATON_TRY(auto output, make(Stmt::Kind::kOutput));
          BATON_TRY(output->expr, exprs_.tuple());
          BATON_OK(s_.expect(Token::Kind::kVariableEnd, "'}}'"));
          out.push_back(std::move(output));
          break;
        }
        case Token::Kind::kBlockBegin: {
          const Token& tag = s_.peek(1);
          if (tag.kind == Token::Kind::kName && one_of(tag.text, until)) return out;
          s_.take();
          BATON_TRY(auto stmt, statement());
          out.push_back(std::move(stmt));
          break;
        }
        default:
          return s_.unexpected("text or a tag");
      }
    }
  }

  Result<std::unique_ptr<Stmt>> make(Stmt::Kind kind) {
    BATON_OK(s_.count_node());
    auto s = std::make_unique<Stmt>();
    s->kind = kind;
    s->line = s_.line();
    return s;
  }
  Result<> close_tag() { return s_.expect(Token::Kind::kBlockEnd, "'%}'"); }
  // "{% name %}" right here.
  Result<> end_tag(std::string_view name) {
    BATON_OK(s_.expect(Token::Kind::kBlockBegin, "'{%'"));
    if (!s_.skip_name(name)) return s_.unexpected(name);
    return close_tag();
  }

  Result<std::unique_ptr<Stmt>> statement() {
    BATON_TRY(std::string name, s_.name());
    if (name == "if") return if_statement();
    if (name == "for") return for_statement();
    if (name == "set") return set_statement();
    if (name == "macro") return macro_statement();
    if (name == "call") return call_statement();
    if (name == "filter") return filter_statement();
    if (name == "with") return with_statement();
    if (name == "generation") {
      BATON_TRY(auto s, make(Stmt::Kind::kScope));
      BATON_OK(close_tag());
      BATON_TRY(s->body, body({"endgeneration"}));
      BATON_OK(end_tag("endgeneration"));
      return s;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) return s_.error(cat("{% ", name, " %} outside a loop"));
      BATON_TRY(auto s, make(name == "break" ? Stmt::Kind::kBreak : Stmt::Kind::kContinue));
      BATON_OK(close_tag());
      return s;
    }
    return fail(Code::kUnimplemented, "line ", s_.line(), ": tag {% ", name, " %} is not supported in chat templates");
  }

  Result<std::unique_ptr<Stmt>> if_statement() {
    BATON_TRY(auto s, make(Stmt::Kind::kIf));
    for (bool more = true; more;) {
      BATON_TRY(ExprPtr condition, exprs_.tuple());
      BATON_OK(close_tag());
      BATON_TRY(Block block, body({"elif", "else", "endif"}));
      s->branches.emplace_back(std::move(condition), std::move(block));
      s_.take();  // {%
      more = s_.skip_name("elif");
    }
    if (s_.skip_name("else")) {
      BATON_OK(close_tag());
      BATON_TRY(Block block, body({"endif"}));
      s->branches.emplace_back(nullptr, std::move(block));
      s_.take();
    }
    if (!s_.skip_name("endif")) return s_.unexpected("endif");
    BATON_OK(close_tag());
    return s;
  }

  Result<std::unique_ptr<Stmt>> for_statement() {
    BATON_TRY(auto s, make(Stmt::Kind::kFor));
    BATON_TRY(s->target, target(false));
    if (!s_.skip_name("in")) return s_.unexpected("'in'");
    BATON_TRY(s->expr, exprs_.tuple(false));
    if (s_.skip_name("if")) {
      BATON_TRY(s->condition, exprs_.expression());
    }
    if (s_.is_name("recursive")) return s_.error("recursive loops are not supported");
    BATON_OK(close_tag());
    ++loops_;
    auto block = body({"else", "endfor"});
    --loops_;
    if (!block) return std::unexpected(block.error());
    s->body = *std::move(block);
    s_.take();
    if (s_.skip_name("else")) {
      BATON_OK(close_tag());
      BATON_TRY(s->otherwise, body({"endfor"}));
      s_.take();
    }
    if (!s_.skip_name("endfor")) return s_.unexpected("endfor");
    BATON_OK(close_tag());
    return s;
  }

  Result<Target> target(bool with_attribute) {
    Target t;
    bool parentheses = s_.skip_op("(");
    do {
      if (!t.names.empty() && !s_.is(Token::Kind::kName)) break;  // (a, )
      BATON_TRY(std::string name, s_.name());
      if (one_of(name, {"true", "false", "none", "True", "False", "None"})) return s_.error(cat("cannot assign to ", name));
      t.names.push_back(std::move(name));
      if (with_attribute && t.names.size() == 1 && s_.skip_op(".")) {
        BATON_TRY(t.attribute, s_.name());
        return t;
      }
      t.unpack = t.unpack || s_.is_op(",");
    } while (s_.skip_op(","));
    if (parentheses) BATON_OK(s_.expect_op(")"));
    return t;
  }

  Result<std::unique_ptr<Stmt>> set_statement() {
    BATON_TRY(auto s, make(Stmt::Kind::kSet));
    BATON_TRY(s->target, target(true));
    if (s_.skip_op("=")) {
      BATON_TRY(s->expr, exprs_.tuple());
      BATON_OK(close_tag());
      return s;
    }
    s->kind = Stmt::Kind::kSetBlock;
    BATON_TRY(s->expr, filter_chain());
    BATON_OK(close_tag());
    BATON_TRY(s->body, body({"endset"}));
    BATON_OK(end_tag("endset"));
    return s;
  }

  // "| a | b" over the text of a block; null if there is none.
  Result<ExprPtr> filter_chain() {
    if (!s_.is_op("|")) return ExprPtr();
    BATON_TRY(ExprPtr text, exprs_.make(Expr::Kind::kName, s_.line(), std::string(kBlockText)));
    return exprs_.filters(std::move(text));
  }

  Result<std::unique_ptr<Stmt>> filter_statement() {
    BATON_TRY(auto s, make(Stmt::Kind::kFilterBlock));
    BATON_TRY(ExprPtr text, exprs_.make(Expr::Kind::kName, s_.line(), std::string(kBlockText)));
    BATON_TRY(s->expr, exprs_.first_filter(std::move(text)));
    BATON_OK(close_tag());
    BATON_TRY(s->body, body({"endfilter"}));
    BATON_OK(end_tag("endfilter"));
    return s;
  }

  Result<std::unique_ptr<Stmt>> with_statement() {
    BATON_TRY(auto s, make(Stmt::Kind::kWith));
    while (!s_.is(Token::Kind::kBlockEnd)) {
      if (!s->assignments.empty()) BATON_OK(s_.expect_op(","));
      Target t;
      BATON_TRY(std::string name, s_.name());
      t.names.push_back(std::move(name));
      BATON_OK(s_.expect_op("="));
      BATON_TRY(ExprPtr value, exprs_.expression());
      s->assignments.emplace_back(std::move(t), std::move(value));
    }
    BATON_OK(close_tag());
    BATON_TRY(s->body, body({"endwith"}));
    BATON_OK(end_tag("endwith"));
    return s;
  }

  // "(a, b=1)" and the body up to {% end %}.
  Result<std::shared_ptr<Macro>> macro_body(std::string name, std::string_view end) {
    auto macro = std::make_shared<Macro>();
    macro->name = std::move(name);
    while (!s_.skip_op(")")) {
      BATON_TRY(std::string parameter, s_.name());
      macro->parameters.push_back(std::move(parameter));
      if (s_.skip_op("=")) {
        BATON_TRY(ExprPtr value, exprs_.expression());
        macro->defaults.push_back(std::move(value));
      } else if (!macro->defaults.empty()) {
        return s_.error("a parameter without default after one with");
      }
      if (!s_.is_op(")")) BATON_OK(s_.expect_op(","));
    }
    return finish_macro(std::move(macro), end);
  }

  Result<std::shared_ptr<Macro>> finish_macro(std::shared_ptr<Macro> macro, std::string_view end) {
    if (end == "endmacro") BATON_OK(close_tag());
    int outer = std::exchange(loops_, 0);
    auto block = body({end});
    loops_ = outer;
    if (!block) return std::unexpected(block.error());
    macro->body = *std::move(block);
    BATON_OK(end_tag(end));
    return macro;
  }

  Result<std::unique_ptr<Stmt>> macro_statement() {
    BATON_TRY(auto s, make(Stmt::Kind::kMacro));
    BATON_TRY(std::string name, s_.name());
    BATON_OK(s_.expect_op("("));
    BATON_TRY(s->macro, macro_body(std::move(name), "endmacro"));
    return s;
  }

  Result<std::unique_ptr<Stmt>> call_statement() {
    BATON_TRY(auto s, make(Stmt::Kind::kCallBlock));
    auto caller = std::make_shared<Macro>();
    caller->name = "caller";
    if (s_.skip_op("(")) {  // {% call(x) f() %}
      while (!s_.skip_op(")")) {
        BATON_TRY(std::string parameter, s_.name());
        caller->parameters.push_back(std::move(parameter));
        if (!s_.is_op(")")) BATON_OK(s_.expect_op(","));
      }
    }
    BATON_TRY(s->expr, exprs_.expression());
    if (s->expr->kind != Expr::Kind::kCall) return s_.error("{% call %} needs a call");
    BATON_OK(close_tag());
    BATON_TRY(s->macro, finish_macro(std::move(caller), "endcall"));
    return s;
  }

  TokenStream s_;
  ExprParser exprs_;
  int loops_ = 0;
};

}  // namespace

Result<Block> parse(std::string_view source) {
  BATON_TRY(std::vector<Token> tokens, tokenize(source));
  return Parser(std::move(tokens)).run();
}

}  // namespace baton::text::jinja

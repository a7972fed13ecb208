#pragma once
// TokenStream: the tokens of a template with one position, and the counts that bound what is built from them.
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/jinja/lexer.h"
#include "text/limits.h"

namespace baton::text::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  Token take() {
    const Token& t = peek();
    if (t.kind != Token::Kind::kEnd) ++at_;
    return t;
  }
  bool is(Token::Kind kind) const { return peek().kind == kind; }
  bool is_op(std::string_view op) const { return is(Token::Kind::kOperator) && peek().text == op; }
  bool is_name(std::string_view name) const { return is(Token::Kind::kName) && peek().text == name; }
  bool skip_op(std::string_view op) { return is_op(op) && (++at_, true); }
  bool skip_name(std::string_view name) { return is_name(name) && (++at_, true); }
  int line() const { return peek().line; }

  std::unexpected<Error> error(std::string_view what) const { return fail(Code::kInvalidArgument, "line ", line(), ": ", what); }
  std::unexpected<Error> unexpected(std::string_view wanted) const {
    return error(cat("expected ", wanted, ", found ", describe(peek())));
  }
  Result<> expect_op(std::string_view op) { return skip_op(op) ? Result<>() : unexpected(cat("'", op, "'")); }
  Result<> expect(Token::Kind kind, std::string_view what) {
    if (!is(kind)) return unexpected(what);
    ++at_;
    return {};
  }
  Result<std::string> name() {
    if (!is(Token::Kind::kName)) return unexpected("a name");
    return take().text;
  }

  Result<> count_node() {
    if (++nodes_ > kTemplateNodesMax)
      return fail(Code::kResourceExhausted, "template has more than ", kTemplateNodesMax, " nodes");
    return {};
  }
  // One level of recursive descent; see Nesting.
  Result<> enter() {
    if (++depth_ > kTemplateDepthMax)
      return fail(Code::kResourceExhausted, "line ", line(), ": nested deeper than ", kTemplateDepthMax);
    return {};
  }
  void leave() { --depth_; }

 private:
  static std::string describe(const Token& t) {
    switch (t.kind) {
      case Token::Kind::kEnd:
        return "the end of the template";
      case Token::Kind::kBlockEnd:
        return "'%}'";
      case Token::Kind::kVariableEnd:
        return "'}}'";
      default:
        return json_string(t.text.substr(0, 40).find_first_of("\x80") == std::string::npos ? t.text.substr(0, 40) : "...");
    }
  }
  std::vector<Token> tokens_;
  size_t at_ = 0;
  size_t nodes_ = 0;
  int depth_ = 0;
};

// Leaves the level on every way out.
class Nesting {
 public:
  explicit Nesting(TokenStream& s) : s_(s) {}
  ~Nesting() { s_.leave(); }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  TokenStream& s_;
};

}  // namespace baton::text::jinja

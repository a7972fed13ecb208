#pragma once
// Interpreter: renders a parsed template once. Scoping is Jinja's: a for loop, macro or with block has its own scope, an if has
// none; set writes to the innermost. Guarantees: bounded steps, depth, work and output (text/limits.h); no I/O but the clock of
// strftime_now. One render, one thread; the tree it walks is shared and const.
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/builtins.h"

namespace baton::text::jinja {

struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<std::string, Value>> variables;
};

class Interpreter {
 public:
  explicit Interpreter(const Value& variables) : globals_(variables) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;
  Result<std::string> render(const Block& block);

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };
  class Depth {  // one nested run or eval
   public:
    explicit Depth(int& depth) : depth_(depth) { ++depth_; }
    ~Depth() { --depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    int& depth_;
  };

  Result<Flow> run(const Block& block);
  Result<Flow> run(const Stmt& s);
  Result<Flow> run_if(const Stmt& s);
  Result<Flow> run_for(const Stmt& s);
  Result<> run_set(const Stmt& s);
  Result<Flow> run_with(const Stmt& s);
  Result<> write(std::string_view text);
  Result<std::string> captured(const Block& block);  // what the block writes, instead of writing it
  Result<Value> filtered(const Expr* chain, std::string text);
  Result<> assign(const Target& target, Value value);
  void set(std::string_view name, Value value);
  Scope* push_scope(Scope* parent);

  Result<Value> eval(const Expr& e);
  Result<Value> eval_name(const Expr& e);
  Result<Value> eval_sequence(const Expr& e);
  Result<Value> eval_dict(const Expr& e);
  Result<Value> eval_access(const Expr& e);
  Result<Value> eval_compare(const Expr& e);
  Result<Value> eval_concat(const Expr& e);
  Result<Value> eval_sign(const Expr& e);
  Result<Value> eval_branch(const Expr& e);
  Result<Value> eval_call(const Expr& e);
  Result<Value> call(const Value& callee, Args args);
  Result<Value> call_macro(const Callable& callee, Args args);
  Result<Args> eval_args(const Expr& e);

  const Value& globals_;
  std::deque<Scope> scopes_;  // all ever made: macros point into them
  Scope* scope_ = nullptr;
  std::vector<std::shared_ptr<Namespace>> namespaces_;  // emptied at the end, so that one holding itself is freed
  std::string* out_ = nullptr;
  Budget budget_;
  int depth_ = 0;
  bool raised_ = false;  // the error is the template's own words
};

}  // namespace baton::text::jinja

#include "graft/nn/fresh.h"

namespace graft::nn {
namespace {

thread_local PutOff* putting_off = nullptr;

void fill(torch::Tensor parameter, const Draw& draw) {
  const torch::NoGradGuard no_grad;
  draw(parameter);
}

}  // namespace

void draw_fresh(const torch::Tensor& parameter, Draw draw) {
  if (putting_off) putting_off->draws_[parameter.unsafeGetTensorImpl()] = {parameter, std::move(draw)};
  else fill(parameter, draw);
}

torch::Tensor fresh_normal(c10::IntArrayRef shape, double deviation) {
  auto parameter = torch::empty(shape);
  draw_fresh(parameter, [deviation](torch::Tensor& p) { p.normal_(0, deviation); });
  return parameter;
}

PutOff::PutOff() : outer_(std::exchange(putting_off, this)) {}
PutOff::~PutOff() { putting_off = outer_; }

void PutOff::draw(torch::Tensor parameter) {
  if (const auto found = draws_.find(parameter.unsafeGetTensorImpl()); found != draws_.end())
    fill(std::move(parameter), found->second.second);
}

}  // namespace graft::nn

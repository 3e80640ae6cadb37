// Numbers that stand for positions on a grid of time, rows and columns (diffusers 0.42.1
// models/embeddings.py). Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

namespace kino::engine {

// Angles of rotary embedding along one axis: positions / theta^(2i / dim).  positions: [N] float32
// -> [N, dim / 2] float32 (get_1d_rotary_pos_embed).
at::Tensor RotaryAngles(const at::Tensor& positions, int64_t dim, double theta = 10000.0);

// `size` positions, [size] float32 on `device`, spread over those that another grid has from
// `begin` to `end`, which is not among them.
at::Tensor SpreadPositions(double begin, double end, int64_t size, c10::Device device);

// Where a grid lies in that of another size, as large as fits and in its middle: the first row and
// column and those behind the last (get_resize_crop_region_for_grid).
struct GridCrop {
  GridCrop(int64_t rows, int64_t columns, int64_t base_rows, int64_t base_columns);
  double top, left, bottom, right;
};

// Sines, then cosines, of positions / 10000^(2i / dim).  positions: [N] float32 -> [N, dim] double
// (get_1d_sincos_pos_embed_from_grid).
at::Tensor SinCosPositions(const at::Tensor& positions, int64_t dim);

// For each position of a grid, the last axis fastest, the numbers of its time, row and column; or
// of its time, column and row.  t: [T, a], h: [H, b], w: [W, c] -> [T * H * W, a + b + c].
at::Tensor OverGrid(const at::Tensor& t, const at::Tensor& h, const at::Tensor& w,
                    bool column_first = false);

// Repeats the last frame, row and column of a grid until their numbers are multiples.  x: [B, C, T,
// H, W].
at::Tensor RepeatToMultiples(const at::Tensor& x, int64_t frames, int64_t space);

// The means of n x n x n positions of a grid, which is repeated to multiples.  table: numbers of
// each, [T * H * W, K], as OverGrid gives them -> [T' * H' * W', K].
at::Tensor MeanOverCubes(const at::Tensor& table, int64_t height, int64_t width, int64_t n);

}  // namespace kino::engine

// How our kernels are launched: KINO_LAUNCH(kernel, blocks, threads, stream)(arguments...). A
// macro, so that tests/support/cuda_emulator.h can put another launch in its place. Only for .cu
// files.
#pragma once

#ifndef KINO_LAUNCH
#define KINO_LAUNCH(kernel, blocks, threads, stream) kernel<<<blocks, threads, 0, stream>>>
#endif

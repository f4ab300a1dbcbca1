// A program with a bug that jobs have: it writes where nothing is. The driver ends it and reports XID 31 or 13.
__global__ void stray(int *nowhere) { *nowhere = 1; }

int main()
{
	stray<<<1, 1>>>((int *) 0xdead0000);
	return cudaDeviceSynchronize() == cudaSuccess;
}

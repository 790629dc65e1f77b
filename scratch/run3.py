from noisy import *
path=sys.argv[1]; quick=len(sys.argv)>2
x,y,xt,yt=data(path,256 if quick else None,60 if quick else 784); out=os.environ.get('OUT','/tmp')
net=Trainable(fresh(64,64,2,'post',[0])).to(dev)
fit(net,x,y,xt,yt,1 if quick else 14,1e-2,1e-3,every=3,tag='float2')
torch.save(net.state_dict(),f'{out}/float2.pt')
tab=np.load('scratch/tables.npz'); names=['cmo-hfox','reram-wan2022','reram-wan2022','pcm-hermes2023-2dev']
tables=torch.tensor(np.stack([tab[n] for n in names]),dtype=torch.float32); pieces=torch.tensor([1.,1.,4.,1.])
nz=Noisy([net.start[0]]*4,tables,pieces,torch.zeros(4,dtype=torch.bool)).to(dev)
sd={k:v for k,v in net.state_dict().items()}
nz.load_state_dict({k:v.expand(4,*v.shape[1:]).clone() for k,v in sd.items()},strict=False)
nz.ranges(x[:256])
print('noisy before',noisy_score(nz,xt[:2000],yt[:2000]),flush=True)
for part in range(1):
    fit(nz,x,y,xt,yt,1 if quick else 7,3e-3,1e-3,every=2,tag='noisy')
    nz.ranges(x[:256])
print('noisy after',noisy_score(nz,xt,yt),flush=True)
torch.save(nz.state_dict(),f'{out}/noisy.pt')

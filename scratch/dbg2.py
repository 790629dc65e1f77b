from noisy import *
x,y,xt,yt=data('/tmp/mn/mnist.npz',200)
sd=torch.load('/tmp/dev4/float2.pt',map_location='cpu')
net=Trainable(fresh(64,64,2,'post',[0])); net.load_state_dict(sd)
tab=np.load('tables.npz')
nz=Noisy([net.start[0]],torch.tensor(tab['cmo-hfox'][None],dtype=torch.float32),torch.tensor([1.]),torch.zeros(1,dtype=torch.bool))
nz.load_state_dict(sd,strict=False); nz.ranges(x[:64])
print('float',score(net,xt,yt,100)); print('clean',score(nz,xt,yt,100))
op,os_=nz.pair,nz.single
ident=lambda *a: a[0]
nz.single=ident; print('pairs only',noisy_score(nz,xt,yt,1,100))
nz.single=os_; nz.pair=ident; print('A only',noisy_score(nz,xt,yt,1,100))
names=['cmo-hfox','reram-wan2022','reram-wan2022','pcm-hermes2023-2dev']
nz=Noisy([net.start[0]]*4,torch.tensor(np.stack([tab[n] for n in names]),dtype=torch.float32),torch.tensor([1.,1,4,1]),torch.zeros(4,dtype=torch.bool))
nz.load_state_dict({k:v.expand(4,*v.shape[1:]).clone() for k,v in sd.items()},strict=False); nz.ranges(x[:64])
print('clean',score(nz,xt,yt,100))
print('noisy',noisy_score(nz,xt,yt,1,100))
for n,l in enumerate(nz.layers): print(l.row.min((-1)).values.amin((1,2)) if False else l.row.flatten(1).min(1).values, l.urow.min(1).values)
